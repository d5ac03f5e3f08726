package ensemble

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
)

// A part is the content of the file that says that a fold is done.
type part struct {
	Config  string         `json:"config"` // digest of the description
	HeldOut int            `json:"held_out"`
	Epochs  []metric.Epoch `json:"epochs"`
}

// part reads the part of fold f; ok is false if the fold is not done.
func (o *folder) part(f int) (p part, ok bool, err error) {
	b, err := os.ReadFile(o.path("fold%d.json", f))
	if errors.Is(err, fs.ErrNotExist) {
		return part{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return part{}, false, fmt.Errorf("%s: %w", o.path("fold%d.json", f), err)
	}
	if p.Config != o.digest {
		return part{}, false, fmt.Errorf("%s belongs to a run with another description than %s; gather only folds of one run", o.path("fold%d.json", f), o.path(configFile))
	}
	return p, true, nil
}

// foldOnce trains and scores a fold unless it is done.
func (r *run) foldOnce(ctx context.Context, f int) error {
	_, done, err := r.out.part(f)
	if err == nil && done {
		err = r.out.removeStates(f) // of a run that was killed before it did
	}
	if err == nil {
		done, err = r.tell(done)
	}
	if err != nil || done {
		return err
	}
	if err := r.out.begin(f); err != nil {
		return err
	}
	if err := r.fold(ctx, f); err != nil {
		return r.withAdvice(fmt.Errorf("fold %d: %w", f, err))
	}
	return nil
}

// withAdvice adds to an error about memory which flags may help.
func (r *run) withAdvice(err error) error {
	var full *train.MemoryError
	if !errors.As(err, &full) || r.cfg.Batch < 2 {
		return err
	}
	where := ""
	if begun(r.opt.Out) {
		where = " in another folder, as this run has learnt something with its own"
	}
	return fmt.Errorf("%w; try -batch %d -accumulate %d%s", err, (r.cfg.Batch+1)/2, 2*r.cfg.Training.MicroBatches, where)
}

// fold trains and scores a fold, or continues this. It frees all its tensors.
func (r *run) fold(ctx context.Context, f int) (err error) {
	nn.Scope(func() { err = r.foldInScope(ctx, f) })
	return err
}

func (r *run) foldInScope(ctx context.Context, f int) error {
	net, err := r.network(f)
	if err != nil {
		return err
	}
	h := &history{}
	saver := &train.Saver{Path: r.out.statePath(f), Every: r.opt.SaveEvery}
	events := new(*report.Events) // opened when the position of the run is known
	board := train.Hook{EpochEnd: func(e metric.Epoch) error { return (*events).Epoch("", e) }}
	learner, err := r.learner(f, net, append(r.hooks(ctx, f, h), board, saver.Hook()))
	if err != nil {
		return err
	}
	found, err := saver.Resume(learner)
	if err != nil {
		return fmt.Errorf("continuing the run: %w", err)
	}
	if found && !r.opt.Resume {
		return fmt.Errorf("it was begun before; continue it with -resume")
	}
	if *events, err = report.NewEvents(r.out.path("events/fold%d", f), &report.EventOptions{First: int64(len(h.Epochs))}); err != nil {
		return err
	}
	err = errors.Join(r.train(ctx, f, learner, h), (*events).Close())
	if err != nil {
		return err
	}
	if err := saver.SaveDue(learner); err != nil {
		return err
	}
	if err := r.saveWeights(f, net); err != nil {
		return err
	}
	if err := h.plot(r.out, f); err != nil {
		return err
	}
	if err := r.heldOut(ctx, f, learner); err != nil {
		if ctx.Err() != nil { // the training need not be made again
			err = errors.Join(err, saver.Save(learner))
		}
		return err
	}
	if err := r.out.json(fmt.Sprintf("fold%d.json", f), part{r.out.digest, len(r.folds[f]), h.Epochs}); err != nil {
		return err
	}
	return r.out.removeStates(f)
}

// seed returns the seed of a fold's order, transforms and dropout.
func (r *run) seed(f int) uint64 { return random.New(uint64(r.cfg.Seed), "fold", uint64(f)).Uint64() }

// learner returns the learner of a fold.
func (r *run) learner(f int, net *unet.Net, hooks []train.Hook) (*train.Learner, error) {
	cfg := r.cfg.Training
	cfg.Seed = r.seed(f)
	scores, err := r.metrics()
	if err != nil {
		return nil, err
	}
	return train.New(net, r.cfg.Task, cfg, &train.Parts{
		Input: r.cfg.Input, Metrics: []metric.Metric{scores}, Hooks: hooks, DeviceData: r.opt.DeviceData, Group: r.opt.Group,
	})
}

// metrics returns the metrics of each epoch: the notebook's Dice for one class; the
// usual scores of each class if there are several or the description asks for more.
func (r *run) metrics() (metric.Metric, error) {
	v := r.cfg.Validation
	noise := metric.Noise{MinPixels: v.MinPixels}
	if len(r.cfg.Task.Classes) == 2 && !v.Curves && !v.Distances {
		return metric.KernelDice(v.Threshold, noise), nil
	}
	return metric.NewScores(metric.ScoreOptions{
		Classes: r.cfg.Task.Classes[1:], Threshold: v.Threshold, Noise: noise, Curves: v.Curves, Distances: v.Distances,
	})
}

// hooks returns the hooks that show and record progress, and stop the run when
// ctx is done.
func (r *run) hooks(ctx context.Context, f int, h *history) []train.Hook {
	files := train.Hook{EpochEnd: func(e metric.Epoch) error {
		r.opt.Progress.Epoch(e)
		return r.out.epochs(f, h.Epochs)
	}}
	bar := train.Hook{BatchEnd: func(b train.BatchInfo) error {
		r.opt.Progress.Step(b.Loss, b.Images)
		return nil
	}}
	return []train.Hook{h.hook(), files, bar, r.deviceDataHook(), stopHook(ctx)}
}

// deviceDataHook shows once whether the training images are on the device, if they should be.
func (r *run) deviceDataHook() train.Hook {
	shown := r.opt.DeviceData == 0
	return train.Hook{PauseDue: func() bool { return !shown }, Pause: func(l *train.Learner) error {
		if shown {
			return nil
		}
		shown = true
		if d := l.DeviceData(); d.Reason != "" {
			r.opt.Progress.Printf("the training images stay on the CPU: %s", d.Reason)
		} else {
			r.opt.Progress.Printf("%.1f MiB of training images and masks are on the device", float64(d.Bytes)/(1<<20))
		}
		return nil
	}}
}

// stopHook stops the run in an orderly way when ctx is done.
func stopHook(ctx context.Context) train.Hook {
	stop := func() error {
		if ctx.Err() != nil {
			return train.Stop
		}
		return nil
	}
	return train.Hook{Copying: stop, BatchEnd: func(train.BatchInfo) error { return stop() }}
}

// epochs writes the epochs of a fold as a table and as JSON lines.
func (o *folder) epochs(f int, epochs []metric.Epoch) error {
	err := atomicfile.Write(o.path("epochs_fold%d.csv", f), func(w io.Writer) error { return report.WriteEpochs(w, epochs) })
	if err != nil {
		return err
	}
	return atomicfile.Write(o.path("epochs_fold%d.jsonl", f), func(w io.Writer) error {
		for _, e := range epochs {
			if err := report.WriteEpochLine(w, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// train runs the phases that remain.
func (r *run) train(ctx context.Context, f int, learner *train.Learner, h *history) error {
	source, err := r.trainSource(f)
	if err != nil {
		return err
	}
	valid, err := r.source(r.images.Subset(r.folds[f]))
	if err != nil {
		return err
	}
	epochs := 0
	for _, p := range r.cfg.Phases {
		epochs += p.Epochs
	}
	r.opt.Progress.Start(fmt.Sprintf("fold %d of %d", f, len(r.folds)), epochs*source.Batches())
	if len(h.Loss) > 0 {
		r.opt.Progress.Set(int64(len(h.Loss)))
	}
	defer r.opt.Progress.End()
	// A hook stops the training, and the copying of images before it, when ctx is done, so
	// that the state of the training can be saved.
	if _, err := learner.Fit(context.WithoutCancel(ctx), source, valid, r.cfg.Phases...); err != nil {
		if native := (*nn.Error)(nil); r.opt.DeviceData > 0 && learner.DeviceData() == (train.DeviceData{}) && errors.As(err, &native) {
			err = fmt.Errorf("%w; without -device-data they stay there", err)
		}
		return err
	}
	return context.Cause(ctx)
}

// trainSource returns a source of the training images of a fold, shuffled and
// transformed.
func (r *run) trainSource(f int) (*feed.Loader, error) {
	return feed.NewLoader(r.images.Subset(r.folds.Train(f)), feed.LoaderOptions{
		Batch: r.cfg.Batch, Size: r.cfg.Size, Shuffle: true, Augment: &r.cfg.Augmentation, Last: r.cfg.Last,
		Seed: r.seed(f), Workers: r.opt.Workers, Share: r.share(),
	})
}

// source returns a source of images in their order, unchanged.
func (r *run) source(images *feed.Images) (*feed.Loader, error) {
	return feed.NewLoader(images, feed.LoaderOptions{Batch: r.cfg.Batch, Size: r.cfg.Size, Workers: r.opt.Workers})
}

// saveWeights writes the network of a fold, with its description and the images
// on which it was trained.
func (r *run) saveWeights(f int, net *unet.Net) error {
	state, err := nn.SaveState(net)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	b, err := r.cfg.JSON()
	if err == nil {
		err = json.Compact(&text, b)
	}
	if err != nil {
		return err
	}
	state.Metadata = map[string]string{
		"hcunet.config": text.String(), "hcunet.fold": fmt.Sprint(f),
		trainedOnKey: r.trainedOn(r.images.Subset(r.folds.Train(f))),
	}
	return checkpoint.SaveSafetensors(r.out.path("fold%d.safetensors", f), state)
}

// flip returns whether predictions are averaged over mirror images.
func (r *run) flip() train.Flip { return train.Flip(r.cfg.Inference.FlipAverage) }

// heldOut predicts the held-out images of a fold and saves the predictions and
// counts.
func (r *run) heldOut(ctx context.Context, f int, learner *train.Learner) error {
	images := r.images.Subset(r.folds[f])
	source, err := r.source(images)
	if err != nil {
		return err
	}
	classes := r.cfg.Task.Classes[1:]
	table, err := metric.NewTable(classes, metric.RefinedThresholds(len(r.folds)))
	if err != nil {
		return err
	}
	r.opt.Progress.Start(fmt.Sprintf("fold %d, held-out images", f), images.Len())
	defer r.opt.Progress.End()
	err = r.out.writePredictions(fmt.Sprintf("fold%d", f), names(images), len(classes), r.cfg.Size, func(add func([][]float32) error) error {
		return learner.Predict(ctx, source, r.flip(), func(p *train.Prediction) error {
			i := r.folds[f][p.Index]
			c := metric.Case{Fold: f, Index: i, Name: r.images.Name(i), Group: r.ds.Train[i].Patient}
			probs := r.probabilities(p)
			if err := table.Add(c, probs, p.Target); err != nil {
				return err
			}
			r.opt.Progress.Add(1)
			return add(probs)
		})
	})
	if err != nil {
		return err
	}
	b, err := table.MarshalBinary()
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(r.out.path("cases_fold%d.bin", f), b)
}

// probabilities returns the probabilities of each class but the background.
func (r *run) probabilities(p *train.Prediction) [][]float32 {
	probs := make([][]float32, len(r.cfg.Task.Classes)-1)
	for c := range probs {
		probs[c] = p.Class(uint8(c + 1))
	}
	return probs
}

func names(images *feed.Images) []string {
	names := make([]string, images.Len())
	for i := range names {
		names[i] = images.Name(i)
	}
	return names
}
