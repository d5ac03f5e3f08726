// Package ensemble trains one network per fold of a data set and averages them:
// from a folder of images to submission.csv.
//
// A [Config] describes what is trained on what and how; it alone decides the result.
// [Default] and [Kernel] fill it in: the system of the notebook "Hypercolumns
// pneumothorax fastai" as it was meant, and as it ran.
//
// For each fold a network is trained, and predicts the images that the fold holds
// out. From all of these together the rules are searched that make masks of
// probabilities, each with an honest estimate: chosen on the other folds, scored on
// this one. The test images are predicted by all networks, averaged, and cut by the
// rule that the description asks for.
//
// A run that was interrupted, in whatever way, goes on with Options.Resume and leaves
// the same bytes of weights, predictions, rules and submission as one that was not,
// on the CPU with the same number of threads. Folds may be trained apart, with
// Options.Fold, and gathered afterwards, to the same bytes. Several processes may
// train each network together, see Options.Group.
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

// Options say where and how a run works. They do not change what comes out.
type Options struct {
	Out    string // folder to make; nothing is written before all is known to be good
	Device nn.Device

	Resume bool // go on with the run in the folder
	Fold   int  // train this fold alone; negative for all, and the ensemble
	Gather bool // make the ensemble of folds that are all done; train none

	// AllowLeak starts from weights that have seen held-out images of another fold.
	// Scores are then of images that the network knows.
	AllowLeak bool

	Memory    int64         // bytes of images held in memory, 0 for all; the others are read again
	Workers   int           // goroutines that make batches; 0 means one per core
	SaveEvery time.Duration // between two states; 0 so that saving costs under 2 % of the time

	// Group is the processes that train each network together, nil for one. All get
	// the same description and see the same folders; the first alone writes. The
	// images of a batch are shared out among them.
	Group *dist.Group

	Progress *report.Progress // nil to work in silence
	Command  []string         // what to note as the command; may be empty
}

// Interrupted is the error of a run that was stopped in order: its state is saved.
type Interrupted struct {
	Out   string // folder of the run
	cause error
}

func (e *Interrupted) Error() string {
	return fmt.Sprintf("stopped; what was done is kept, and -resume -out %s goes on with it", e.Out)
}

func (e *Interrupted) Unwrap() error { return e.cause }

// Run trains and scores the ensemble and leaves in the folder Out
//
//	config.json            the description as run
//	run.json               when, by which command, program and machine
//	network.txt            its modules
//	first_batch.png        the first training images as fold 0 sees them
//	fold0.safetensors      weights of each fold, under PyTorch's names
//	epochs_fold0.csv, .jsonl
//	preds_fold0.npy        its held-out predictions, bytes (images, rows, columns), 255*probability rounded down
//	items_fold0.txt        the names of these images, a line each
//	cases_fold0.bin        their counts at each threshold, a metric.Table
//	fold0.json             says that the fold is done
//	model.safetensors      all folds as one model, a predict.Artifact
//	preds_test.npy, items_test.txt, submission.csv
//	cases.csv              a row per held-out image and class
//	rules.json             the rules that were found, and what they are worth
//	scores.txt, scores.json
//	*.png, report.html     all of it on one page
//	events/                for TensorBoard
//	state/                 of folds under way
//
// What is wrong with the choices or the data is found before anything is written.
// Once ctx is done it stops after the step under way, saves, and returns an
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
	r.opt.Group = nil // the others have ended: the ensemble is the first process's alone
	result, err := r.gather(ctx)
	return result, r.interrupted(ctx, err)
}

// interrupted says how to go on where ctx or a full disk was the reason for an error.
func (r *run) interrupted(ctx context.Context, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the disk of %s is full; make room, and -resume goes on with what was saved: %w", r.opt.Out, err)
	}
	cancelled := ctx.Err() != nil && (errors.Is(err, context.Cause(ctx)) || errors.Is(err, ctx.Err()))
	if err != nil && (cancelled || errors.Is(err, train.ErrElsewhere)) {
		return &Interrupted{r.opt.Out, err}
	}
	return err
}

// A run is an ensemble under way.
type run struct {
	cfg     Config
	opt     Options
	ds      *data.Dataset
	images  *feed.Images
	test    *feed.Images
	folds   folds.Folds
	weights *checkpoint.File // to start from; nil for none
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
	case opt.Gather && opt.Fold >= 0:
		return nil, errors.New("a fold is trained or all are gathered, not both at once")
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
			return nil, fmt.Errorf("fold %d has no batch of %d images to train on: it has %d; take a smaller batch, or keep the last one (last_batch)", f, cfg.Batch, source.Len())
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

// preparation compares how the images were made with what the description says.
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

// read loads images as far as memory reaches.
func (r *run) read(ctx context.Context, samples []data.Sample) (*feed.Images, error) {
	return feed.Read(ctx, feed.Samples(samples, r.cfg.Task), &feed.ReadOptions{
		Memory: r.opt.Memory, Workers: r.opt.Workers, Classes: len(r.cfg.Task.Classes),
	})
}

// statistics fills in the input's mean and deviation: those that prepare left beside
// the data, or else those of the training images.
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
			patients[i] = "image " + s.Name // stands for itself
		}
	}
	if r.cfg.Folds.Split == ByArea {
		return folds.ByArea(areas, k, seed)
	}
	if !known {
		return nil, errors.New("it does not know the patients, so -split patient cannot be; name them with prepare -patients, or take another split")
	}
	return folds.ByGroup(patients, areas, k, seed)
}
