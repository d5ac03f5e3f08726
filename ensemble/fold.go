package ensemble

import (
	"context"
	"fmt"
	"image"
	"math"
	"slices"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
	"github.com/hcunet/hcunet/train"
)

// foreground is the class of a pixel that belongs to a mask.
const foreground = 1

// fold trains and scores one fold. All its tensors go when it is done.
func (r *run) fold(ctx context.Context, f int) (err error) {
	nn.Scope(func() { err = r.foldInScope(ctx, f) })
	return err
}

func (r *run) foldInScope(ctx context.Context, f int) error {
	net, err := r.network(f, r.weights)
	if err != nil {
		return err
	}
	valid := r.images.Subset(r.folds[f])
	history := &history{}
	learner, err := train.New(net, r.task, r.training(f), &train.Parts{
		Input:   r.input,
		Metrics: []metric.Metric{metric.KernelDice(r.Threshold, metric.Noise{MinPixels: r.noise()})},
		Hooks: []train.Hook{{
			BatchEnd: func(b train.BatchInfo) error {
				history.batch(b)
				r.Progress.Step(b.Loss, b.Images)
				return nil
			},
			EpochEnd: func(e metric.Epoch) error {
				history.epoch(e)
				r.Progress.Epoch(e)
				return nil
			},
		}},
	})
	if err != nil {
		return err
	}
	if err := r.train(ctx, f, learner, valid); err != nil {
		return err
	}
	state, err := nn.SaveState(net)
	if err != nil {
		return err
	}
	if err := checkpoint.SaveSafetensors(r.out.path("fold%d.safetensors", f), state); err != nil {
		return err
	}
	if err := history.plot(r.out, f); err != nil {
		return err
	}
	r.epochs = append(r.epochs, history.epochs)
	if err := r.out.epochs(r.epochs); err != nil {
		return err
	}
	if err := r.score(ctx, f, learner, valid); err != nil {
		return err
	}
	return r.predictTest(ctx, f, learner)
}

// train runs the frozen and the unfrozen phase.
func (r *run) train(ctx context.Context, f int, learner *train.Learner, valid *feed.Images) error {
	last := feed.DropLone
	if r.Recipe == Kernel {
		last = feed.DropLast // as fastai does
	}
	loader, err := feed.NewLoader(r.images.Subset(r.folds.Train(f)), feed.LoaderOptions{
		Batch: r.Batch, Size: r.Size, Shuffle: true, Augment: &augment.Config{}, Last: last,
		Seed: random.New(uint64(r.Seed), "fold", uint64(f)).Uint64(),
	})
	if err != nil {
		return err
	}
	validLoader, err := r.loader(valid)
	if err != nil {
		return err
	}
	groups := learner.LayerGroups()
	full, err := train.EvenRates(r.Rate/80, r.Rate/2, groups)
	if err != nil {
		return err
	}
	for _, p := range []train.Phase{
		{Name: "frozen", Epochs: r.FrozenEpochs, Rates: train.SameRates(r.Rate, groups), Frozen: r.weights != nil},
		{Name: "full", Epochs: r.FullEpochs, Rates: full},
	} {
		if p.Epochs == 0 {
			continue
		}
		if !p.Frozen && p.Name == "frozen" {
			p.Name = "first" // nothing to keep frozen without pretrained weights
		}
		r.Progress.Start(fmt.Sprintf("fold %d of %d, %s", f, len(r.folds), p.Name), p.Epochs*loader.Batches())
		_, err := learner.Fit(ctx, loader, validLoader, p)
		r.Progress.End()
		if err != nil {
			return err
		}
	}
	return nil
}

// loader yields images in their order, as they are.
func (r *run) loader(images *feed.Images) (*feed.Loader, error) {
	return feed.NewLoader(images, feed.LoaderOptions{Batch: r.Batch, Size: r.Size})
}

// score predicts the held-out images, saves the predictions, and searches the
// threshold.
func (r *run) score(ctx context.Context, f int, learner *train.Learner, valid *feed.Images) error {
	loader, err := r.loader(valid)
	if err != nil {
		return err
	}
	sweep := metric.NewSweep(nil, metric.Noise{MinSum: r.noise()})
	bytes := newPredictions(valid.Len(), r.Size)
	var largest largestMasks
	r.Progress.Start(fmt.Sprintf("fold %d, held-out images", f), valid.Len())
	err = learner.Predict(ctx, loader, train.FlipAverage, func(p *train.Prediction) error {
		prob := p.Class(foreground)
		bytes.add(prob)
		sweep.Add(prob, p.Target, foreground)
		index := r.folds[f][p.Index]
		c := metric.Case{Fold: f, Index: index, Name: valid.Name(p.Index), Group: r.patients[index]}
		if err := r.heldOut.Add(c, [][]float32{prob}, p.Target); err != nil {
			return err
		}
		metric.RemoveNoise(prob, r.noise())
		largest.add(prediction{p.Index, prob, p.Target})
		r.Progress.Add(1)
		return nil
	})
	r.Progress.End()
	if err != nil {
		return err
	}
	threshold, best := sweep.Best()
	r.result.Scores = append(r.result.Scores, best.Dice)
	r.result.Thresholds = append(r.result.Thresholds, threshold)
	r.Progress.Printf("fold %d: Dice %.4f at threshold %.2f; %s", f, best.Dice, threshold, best)

	if err := r.out.predictions(fmt.Sprintf("fold%d", f), bytes, names(valid)); err != nil {
		return err
	}
	return r.samples(f, valid, largest, threshold)
}

// A prediction is a held-out image's.
type prediction struct {
	index  int       // in its fold
	prob   []float32 // without noise
	target []uint8
}

// largestMasks are the predictions of the ten images with the largest masks, the
// largest first, and of equal ones the first.
type largestMasks []prediction

// add takes a prediction. Its target is valid during the call.
func (l *largestMasks) add(p prediction) {
	const rows = 10
	at := len(*l)
	for at > 0 && p.area() > (*l)[at-1].area() {
		at--
	}
	if at < rows {
		p.target = slices.Clone(p.target)
		*l = slices.Insert(*l, at, p)
		*l = (*l)[:min(rows, len(*l))]
	}
}

func (p *prediction) area() (n int) {
	for _, v := range p.target {
		if v == foreground {
			n++
		}
	}
	return n
}

// samples draws the ten held-out images with the largest masks, as the notebook
// does.
func (r *run) samples(f int, valid *feed.Images, predictions largestMasks, threshold float64) error {
	var samples []report.Sample
	for _, p := range predictions {
		film, err := r.film(valid, p.index)
		if err != nil {
			return err
		}
		predicted := make([]uint8, len(p.prob))
		metric.ThresholdRule(threshold, 0).Apply(predicted, p.prob, foreground)
		dice := metric.Compare(p.prob, p.target, foreground, threshold, metric.Noise{}).Dice()
		samples = append(samples, report.Sample{
			Caption: fmt.Sprintf("%s  Dice %.3f", valid.Name(p.index), dice),
			Image:   film, Target: p.target, Predicted: predicted,
		})
	}
	return report.Samples(r.out.path("samples_fold%d.png", f), samples, &report.SampleOptions{Title: fmt.Sprintf("Fold %d, held-out images", f)})
}

// film returns an image at the network's size.
func (r *run) film(images *feed.Images, i int) (*image.Gray, error) {
	plan, err := augment.Identity().Plan(images.Height, images.Width, r.Size)
	if err != nil {
		return nil, err
	}
	img, _, err := images.At(i)
	if err != nil {
		return nil, err
	}
	src := make([]float32, img.Width*img.Height)
	for j := range src {
		src[j] = float32(img.At(j))
	}
	film := image.NewGray(image.Rect(0, 0, plan.W, plan.H))
	for j, v := range plan.Image(nil, src) {
		film.Pix[j] = uint8(math.Round(255 * float64(v)))
	}
	return film, nil
}

// predictTest adds a fold's predictions of the test images to the sum.
func (r *run) predictTest(ctx context.Context, f int, learner *train.Learner) error {
	if r.test.Len() == 0 {
		return nil
	}
	loader, err := r.loader(r.test)
	if err != nil {
		return err
	}
	r.Progress.Start(fmt.Sprintf("fold %d, test images", f), r.test.Len())
	defer r.Progress.End()
	return learner.Predict(ctx, loader, train.FlipAverage, func(p *train.Prediction) error {
		prob := p.Class(foreground)
		if r.testSum[p.Index] == nil {
			r.testSum[p.Index] = make([]float32, len(prob))
		}
		for i, v := range prob {
			r.testSum[p.Index][i] += v
		}
		r.Progress.Add(1)
		return nil
	})
}

// history is what a fold's training leaves for its plots.
type history struct {
	loss     report.LossHistory
	rates    [][]float64
	momentum []float64
	epochs   []metric.Epoch
}

func (h *history) batch(b train.BatchInfo) {
	h.loss.Train = append(h.loss.Train, b.Loss)
	h.momentum = append(h.momentum, b.Momentum)
	if h.rates == nil {
		h.rates = make([][]float64, len(b.Rates))
	}
	for g, rate := range b.Rates {
		h.rates[g] = append(h.rates[g], rate)
	}
}

func (h *history) epoch(e metric.Epoch) {
	if n := len(h.epochs); n == 0 || h.epochs[n-1].Phase != e.Phase {
		start := 0
		if k := len(h.loss.ValidAt); k > 0 {
			start = h.loss.ValidAt[k-1]
		}
		h.loss.Phases = append(h.loss.Phases, report.Phase{Name: e.Phase, Start: start})
	}
	h.epochs = append(h.epochs, e)
	h.loss.ValidAt = append(h.loss.ValidAt, len(h.loss.Train))
	h.loss.Valid = append(h.loss.Valid, e.Value(metric.ValidLoss))
}

func (h *history) plot(out output, f int) error {
	if len(h.loss.Train) == 0 {
		return nil
	}
	if err := report.LossPlot(out.path("loss_fold%d.png", f), fmt.Sprintf("Fold %d, loss", f), h.loss); err != nil {
		return err
	}
	return report.SchedulePlot(out.path("rates_fold%d.png", f), fmt.Sprintf("Fold %d, schedule", f), h.rates, h.momentum, h.loss.Phases)
}
