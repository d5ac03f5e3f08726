// Package ensemble trains one network per fold of a data set and averages their
// predictions: from a folder of images to submission.csv.
//
// A [Config] describes a run and alone decides its result. [Kernel] returns the
// system of the notebook "Hypercolumns pneumothorax fastai" exactly, and [Default]
// the same system without its errors.
//
// For each fold a network is trained, which then predicts the held-out images of
// the fold. On all held-out predictions together, rules that turn probabilities
// into masks are searched. Each rule gets an unbiased estimate: for every fold, the
// rule is chosen on the other folds and scored on this one. The test images are
// predicted by all networks; the mean of the probabilities becomes masks by the
// rule that the description names.
//
// A run that was interrupted in any way is continued with Options.Resume. On the CPU
// with the same number of threads it then gives the same bytes of weights,
// predictions, rules and submission as without the interruption. Folds may be trained
// separately with Options.Fold and gathered afterwards, with the same bytes. Several
// processes may train each network together, see Options.Group.
package ensemble

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/folds"
	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
	"github.com/hcunet/hcunet/train"
)

// Options say where and how a run works. They do not change the result, but for rounding.
type Options struct {
	Out    string // folder to make; nothing is written before everything was checked
	Device nn.Device

	Resume bool // continue the run in the folder
	Fold   int  // train only this fold; negative means all folds and the ensemble
	Gather bool // only make the ensemble; all folds must be done

	// AllowLeak allows to start from weights that were trained on held-out images.
	// The scores are then too high.
	AllowLeak bool

	Memory    int64         // bytes of images kept in memory, 0 means all; other images are read again each time
	Workers   int           // goroutines that make batches; 0 means one per core
	SaveEvery time.Duration // time between two saved states; 0 chooses it so that saving takes under 2 % of the time

	// DeviceData is the number of bytes of the device's memory that the training images
	// and masks of a fold may take; 0 means none. If they fit, batches are made on the
	// device, see train.Parts. This changes the last bits of the result, so a run should
	// be continued with the same choice.
	DeviceData int64

	// Group is the group of processes that train each network together, nil for one
	// process. All must get the same description and see the same folders. Each
	// trains on a part of every batch. Only the first process writes files.
	Group *dist.Group

	Progress *report.Progress // nil shows nothing
	Command  []string         // the command, for run.json; may be empty
}

// Interrupted is the error of a run that was stopped and has saved its state.
type Interrupted struct {
	Out   string // folder of the run
	cause error
}

func (e *Interrupted) Error() string {
	return fmt.Sprintf("stopped; the state is saved, and -resume -out %s continues the run", e.Out)
}

func (e *Interrupted) Unwrap() error { return e.cause }

// Run trains and scores the ensemble and writes to the folder Out:
//
//	config.json            the description of the run
//	run.json               time, command, program and machine
//	network.txt            the modules of the network
//	first_batch.png        the first training batch of fold 0
//	fold0.safetensors      weights of each fold, with PyTorch's names
//	epochs_fold0.csv, .jsonl
//	preds_fold0.npy        its held-out predictions, bytes (images, rows, columns), 255*probability rounded down
//	items_fold0.txt        the names of these images, one per line
//	cases_fold0.bin        their counts at each threshold, a metric.Table
//	fold0.json             says that the fold is done
//	model.safetensors      all folds as one model, a predict.Artifact
//	preds_test.npy, items_test.txt, submission.csv
//	cases.csv              a row per held-out image and class
//	rules.json             the rules that were found, and their scores
//	scores.txt, scores.json
//	*.png, report.html     plots, and all results on one page
//	events/                events for TensorBoard
//	state/                 states of unfinished folds
//
// Wrong choices and wrong data are found before anything is written. When ctx is
// done, Run finishes the current step, saves its state and returns an
// *[Interrupted].
func Run(ctx context.Context, cfg Config, opt Options) (*Result, error) {
	r, err := newRun(ctx, cfg, opt)
	if err != nil {
		return nil, err
	}
	if err := r.agree(); err != nil {
		return nil, err
	}
	if !r.first() {
		return &Result{Out: opt.Out}, r.interrupted(ctx, r.follow(ctx))
	}
	if r.out, err = openFolder(r.cfg, opt); err != nil {
		return nil, err
	}
	defer r.out.close()
	switch {
	case opt.Gather:
	case opt.Fold >= 0:
		return &Result{Out: opt.Out}, r.interrupted(ctx, r.foldOnce(ctx, opt.Fold))
	default:
		if err := r.describe(ctx); err != nil {
			return nil, r.interrupted(ctx, err)
		}
		for f := range r.folds {
			if err := r.foldOnce(ctx, f); err != nil {
				return nil, r.interrupted(ctx, err)
			}
		}
	}
	r.opt.Group = nil // the other processes have ended; only the first makes the ensemble
	result, err := r.gather(ctx)
	return result, r.interrupted(ctx, err)
}

// interrupted adds to an error how to continue, if the reason was ctx or a full disk.
func (r *run) interrupted(ctx context.Context, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the disk of %s is full; make room, and -resume continues from the saved state: %w", r.opt.Out, err)
	}
	cancelled := ctx.Err() != nil && (errors.Is(err, context.Cause(ctx)) || errors.Is(err, ctx.Err()))
	if err != nil && (cancelled || errors.Is(err, train.ErrElsewhere)) {
		return &Interrupted{r.opt.Out, err}
	}
	return err
}

// A run holds the state of one call of Run.
type run struct {
	cfg     Config
	opt     Options
	ds      *data.Dataset
	images  *feed.Images
	test    *feed.Images
	folds   folds.Folds
	weights *checkpoint.File // weights to start from; nil for none
	out     *folder
}

// newRun checks and loads everything and writes nothing.
func newRun(ctx context.Context, cfg Config, opt Options) (*run, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	switch {
	case opt.Out == "":
		return nil, errors.New("no output folder was given")
	case opt.Fold >= cfg.Folds.Number:
		return nil, fmt.Errorf("fold %d of %d; folds are counted from 0", opt.Fold, cfg.Folds.Number)
	case opt.DeviceData < 0:
		return nil, fmt.Errorf("training images may take %d bytes on the device; wanted 0 or more", opt.DeviceData)
	case opt.Gather && opt.Fold >= 0:
		return nil, errors.New("Fold and Gather are both set; train one fold, or gather all folds")
	}
	ds, err := data.Open(cfg.Data, &data.Options{Multiple: 1, Task: cfg.Task})
	if err != nil {
		return nil, err
	}
	r := &run{cfg: cfg, opt: opt, ds: ds}
	r.cfg.Task = ds.Task
	if err := r.preparation(); err != nil {
		return nil, err
	}
	if r.weights, err = r.startWeights(ctx); err != nil {
		return nil, err
	}
	if r.images, err = r.read(ctx, ds.Train); err != nil {
		return nil, err
	}
	if r.test, err = r.read(ctx, ds.Test); err != nil {
		return nil, err
	}
	if r.folds, err = r.split(); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Data, err)
	}
	for f := range r.folds {
		source, err := r.trainSource(f)
		if err != nil {
			return nil, err
		}
		if source.Batches() == 0 {
			return nil, fmt.Errorf("fold %d has no batch of %d images to train on: it has %d; use a smaller batch, or keep the last batch (last_batch)", f, cfg.Batch, source.Len())
		}
	}
	r.statistics()
	if err := r.leaks(); err != nil {
		return nil, err
	}
	if err := r.tryNetwork(); err != nil {
		return nil, err
	}
	if !r.first() {
		return r, nil
	}
	return r, checkFolder(opt.Out, r.cfg, opt)
}

// preparation compares how the images were made with the description.
func (r *run) preparation() error {
	is := r.ds.Preparation
	if r.cfg.Preparation == nil {
		r.cfg.Preparation = is
		return nil
	}
	if is == nil {
		return fmt.Errorf("the description says how images were prepared, but the folder %s does not; prepare it with examples/prepare, or leave preparation out of the description", r.cfg.Data)
	}
	a, b := Config{Preparation: is}, Config{Preparation: r.cfg.Preparation}
	if d := a.Differences(b); len(d) > 0 {
		return fmt.Errorf("the images in %s were prepared in another way than the description says: %v", r.cfg.Data, d)
	}
	return nil
}

// read reads the images of samples; opt.Memory limits how many are kept in
// memory.
func (r *run) read(ctx context.Context, samples []data.Sample) (*feed.Images, error) {
	return feed.Read(ctx, feed.Samples(samples, r.cfg.Task), &feed.ReadOptions{
		Memory: r.opt.Memory, Workers: r.opt.Workers, Classes: len(r.cfg.Task.Classes),
	})
}

// statistics sets the mean and standard deviation of the input, from the statistics
// file of the data, or else from the training images.
func (r *run) statistics() {
	if len(r.cfg.Input.Mean) > 0 || len(r.cfg.Input.Std) > 0 {
		return
	}
	mean, std := []float64(r.ds.Mean), []float64(r.ds.Std)
	if mean == nil {
		mean, std = r.images.Statistics()
	}
	if len(mean) == 1 {
		r.cfg.Input = spread(mean[0], std[0])
		return
	}
	r.cfg.Input.Mean, r.cfg.Input.Std = mean, std
}

// split divides the training images into folds.
func (r *run) split() (folds.Folds, error) {
	n, k, seed := r.images.Len(), r.cfg.Folds.Number, r.cfg.Seed
	if r.cfg.Folds.Split == AtRandom {
		return folds.KFold(n, k, seed)
	}
	areas := make([]float64, n)
	patients := make([]string, n)
	known := false
	for i, s := range r.ds.Train {
		for class := 1; class < len(r.cfg.Task.Classes); class++ {
			areas[i] += float64(r.images.Pixels(i, uint8(class)))
		}
		patients[i] = s.Patient
		known = known || s.Patient != ""
		if s.Patient == "" {
			patients[i] = "image " + s.Name // a group of its own
		}
	}
	if r.cfg.Folds.Split == ByArea {
		return folds.ByArea(areas, k, seed)
	}
	if !known {
		return nil, errors.New("the patients are not known, so -split patient is not possible; name them with prepare -patients, or use another split")
	}
	return folds.ByGroup(patients, areas, k, seed)
}
