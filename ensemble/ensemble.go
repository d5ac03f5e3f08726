// Package ensemble trains one network per fold of a data set and averages them:
// the notebook "Hypercolumns pneumothorax fastai" from a folder of images to
// submission.csv.
//
// For each fold it trains frozen and unfrozen, predicts the held-out images and
// the test images with flip averaging, removes noise, and searches the threshold
// with the best mean Dice. The test predictions are averaged over the folds and
// cut at the mean of the folds' thresholds.
package ensemble

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/folds"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
	"github.com/hcunet/hcunet/train"
)

// A Result is what a run found out.
type Result struct {
	Out        string
	Scores     []float64     // per fold: mean Dice of the held-out images at the fold's best threshold
	Thresholds []float64     // per fold: that threshold
	Threshold  float64       // their mean, at which the test predictions are cut
	OutOfFold  metric.Report // of all held-out images at Threshold

	// Choices are three ways to choose an operating point from the held-out images; the
	// first one is the notebook's, which gives Threshold.
	Choices *metric.Choices

	TestImages int
	TestMasks  int // test images on which anything is predicted
}

// MeanScore returns the mean of the folds' scores.
func (r *Result) MeanScore() float64 {
	sum := 0.0
	for _, s := range r.Scores {
		sum += s
	}
	return sum / float64(len(r.Scores))
}

// String returns the result as a few lines of text.
func (r *Result) String() string {
	var b strings.Builder
	b.WriteString("fold  Dice    threshold\n")
	for f, s := range r.Scores {
		fmt.Fprintf(&b, "%-4d  %.4f  %.2f\n", f, s, r.Thresholds[f])
	}
	fmt.Fprintf(&b, "mean  %.4f  %.4f\n\n", r.MeanScore(), r.Threshold)
	fmt.Fprintf(&b, "all held-out images at threshold %.4f:\n%s\n", r.Threshold, r.OutOfFold)
	if r.Choices != nil {
		fmt.Fprintf(&b, "\n%s", r.Choices)
	}
	if r.TestImages > 0 {
		fmt.Fprintf(&b, "\n%d of %d test images have a mask in submission.csv\n", r.TestMasks, r.TestImages)
	}
	return b.String()
}

// Run trains and scores the ensemble and leaves in cfg.Out
//
//	config.json            the choices as run, with versions
//	epochs.csv             a line per epoch and fold
//	fold0.safetensors      weights of each fold, under PyTorch's names
//	preds_fold0.npy        its held-out predictions, bytes (images, rows, columns), 255*probability rounded down
//	items_fold0.txt        the names of these images, a line each
//	preds_test.npy, items_test.txt, submission.csv
//	scores.txt, scores.json
//	cases.csv              a line per held-out image
//	dice.png, calibration.png, loss_fold0.png, rates_fold0.png, samples_fold0.png
//	report.html            all of it on one page
//
// What is wrong with the choices or the data is found before anything is
// written. With ctx it stops between two batches.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	r, err := newRun(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for f := range r.folds {
		if err := r.fold(ctx, f); err != nil {
			return nil, fmt.Errorf("fold %d: %w", f, err)
		}
	}
	return r.finish()
}

// A run is an ensemble under way.
type run struct {
	Config
	images, test *feed.Images
	patients     []string          // per training image
	geometry     []resize.Geometry // per test image: how its film lies in it
	folds        folds.Folds
	weights      *checkpoint.File // of the encoder; nil for none
	task         data.Task
	input        train.Input
	out          output

	result  Result
	epochs  [][]metric.Epoch // per fold
	heldOut *metric.Table    // of all folds
	testSum [][]float32      // over the folds, per test image
}

// newRun checks and loads everything, and then makes the output folder.
func newRun(ctx context.Context, cfg Config) (*run, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	ds, err := data.Open(cfg.Data, &data.Options{Multiple: 1, Task: data.Task{Masks: cfg.Masks}})
	if err != nil {
		return nil, err
	}
	r := &run{Config: cfg, task: ds.Task}
	if r.folds, err = split(cfg, ds); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Data, err)
	}
	if err := checkOutput(cfg.Out); err != nil {
		return nil, err
	}
	if r.weights, err = cfg.encoderWeights(ctx); err != nil {
		return nil, err
	}
	if r.images, err = feed.Read(ctx, feed.Samples(ds.Train, ds.Task), nil); err != nil {
		return nil, err
	}
	for _, s := range ds.Train {
		r.patients = append(r.patients, s.Patient)
	}
	for _, s := range ds.Test {
		r.geometry = append(r.geometry, s.Geometry)
	}
	if r.test, err = feed.Read(ctx, feed.Samples(ds.Test, ds.Task), nil); err != nil {
		return nil, err
	}
	mean, std := cfg.statistics(ds, r.images)
	r.Mean, r.Std = mean, std
	r.input = train.Input{Mean: []float64{mean, mean, mean}, Std: []float64{std, std, std}}
	// Building the first network tells whether the weights fit.
	nn.Scope(func() { _, err = r.network(0, r.weights) })
	if err != nil {
		return nil, err
	}
	if r.heldOut, err = metric.NewTable([]string{"foreground"}, metric.RefinedThresholds(len(r.folds))); err != nil {
		return nil, err
	}
	r.testSum = make([][]float32, r.test.Len())
	r.result = Result{Out: cfg.Out, TestImages: r.test.Len()}
	r.out = output(cfg.Out)
	return r, r.out.begin(r.Config)
}

// checkOutput refuses a folder that holds something.
func checkOutput(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("the output folder %s is not empty (it holds %s); choose another one or delete it", dir, entries[0].Name())
	}
	return nil
}

// split divides the training images into folds.
func split(cfg Config, ds *data.Dataset) (folds.Folds, error) {
	if cfg.Split == AtRandom {
		return folds.KFold(len(ds.Train), cfg.Folds, cfg.Seed)
	}
	areas := make([]float64, len(ds.Train))
	patients, known := make([]string, len(ds.Train)), false
	for i, s := range ds.Train {
		_, mask, err := s.Load(ds.Task)
		if err != nil {
			return nil, err
		}
		for _, v := range mask {
			areas[i] += float64(v)
		}
		known = known || s.Patient != ""
		if patients[i] = s.Patient; s.Patient == "" {
			patients[i] = "image " + s.Name // stands for itself
		}
	}
	if cfg.Split == ByPatient && !known {
		return nil, fmt.Errorf("-split patient: nobody knows whose the images are; give prepare a list with -patients, or take -split random or area")
	}
	if cfg.Split == ByArea {
		return folds.ByArea(areas, cfg.Folds, cfg.Seed)
	}
	return folds.ByGroup(patients, areas, cfg.Folds, cfg.Seed)
}

// finish writes what concerns all folds.
func (r *run) finish() (*Result, error) {
	res := &r.result
	for _, t := range res.Thresholds {
		res.Threshold += t / float64(len(res.Thresholds))
	}
	var err error
	if res.Choices, err = r.heldOut.Search(foreground, &metric.SearchOptions{MinSum: r.noise()}); err != nil {
		return nil, err
	}
	pooled := metric.ThresholdRule(res.Threshold, r.noise())
	res.OutOfFold, err = r.heldOut.Report(foreground, func(int) metric.Rule { return pooled }, &metric.ReportOptions{
		Chosen: metric.ChosenOnSame, Rand: random.New(uint64(r.Seed), "bootstrap"),
	})
	if err != nil {
		return nil, err
	}
	curves, err := report.CurvesOf(r.heldOut, foreground, r.noise())
	if err != nil {
		return nil, err
	}
	if err := report.DicePlot(r.out.path("dice.png"), "Dice of the held-out images", curves...); err != nil {
		return nil, err
	}
	if r.test.Len() > 0 {
		if res.TestMasks, err = r.submit(); err != nil {
			return nil, err
		}
	}
	if err := r.out.scores(res); err != nil {
		return nil, err
	}
	return res, r.page()
}

// path returns the path of a file in the output folder.
func (o output) path(format string, args ...any) string {
	return filepath.Join(string(o), fmt.Sprintf(format, args...))
}
