package ensemble

import (
	"cmp"
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
	trainer, err := train.New(net, train.Options{
		Recipe: r.Recipe, Device: r.Device, BFloat16: r.BF16, Input: r.input,
		Accumulate: r.Accumulate, Clip: r.Clip,
		BatchNorm: r.batchNormMomentum(),
		Threshold: r.Threshold, Noise: metric.Noise{MinPixels: r.noise()},
		Observe: train.Observer{
			Batch: func(b train.BatchInfo) {
				history.batch(b)
				r.Progress.Step(b.Loss)
			},
			Epoch: func(e train.Epoch) {
				history.epoch(e)
				r.Progress.Epoch(report.Epoch(e))
			},
		},
	})
	if err != nil {
		return err
	}
	if err := r.train(ctx, f, net, trainer, valid); err != nil {
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
	if err := r.score(ctx, f, trainer, valid); err != nil {
		return err
	}
	return r.predictTest(ctx, f, trainer)
}

// train runs the frozen and the unfrozen phase.
func (r *run) train(ctx context.Context, f int, net train.Model, trainer *train.Trainer, valid *feed.Images) error {
	last := feed.DropLone
	if r.Recipe == train.Kernel {
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
	groups := len(net.LayerGroups())
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
		_, err := trainer.Fit(ctx, p, loader, validLoader)
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
func (r *run) score(ctx context.Context, f int, trainer *train.Trainer, valid *feed.Images) error {
	loader, err := r.loader(valid)
	if err != nil {
		return err
	}
	sweep := metric.NewSweep(nil, metric.Noise{})
	bytes := newPredictions(valid.Len(), r.Size)
	first := len(r.heldOut)
	r.Progress.Start(fmt.Sprintf("fold %d, held-out images", f), valid.Len())
	err = trainer.Predict(ctx, loader, false, func(p train.Prediction) error {
		bytes.add(p.Prob)
		metric.RemoveNoise(p.Prob, r.noise())
		sweep.Add(p.Prob, p.Targets)
		r.heldOut = append(r.heldOut, prediction{p.Prob, slices.Clone(p.Targets), r.patients[r.folds[f][p.Index]]})
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
	r.curves = append(r.curves, report.Curve{Name: fmt.Sprintf("fold %d", f), Thresholds: sweep.Thresholds(), Dice: sweep.Dice()})
	r.Progress.Printf("fold %d: Dice %.4f at threshold %.2f; %s", f, best.Dice, threshold, best)

	if err := r.out.predictions(fmt.Sprintf("fold%d", f), bytes, names(valid)); err != nil {
		return err
	}
	return r.samples(f, valid, r.heldOut[first:], threshold)
}

// samples draws the ten held-out images with the largest masks, as the notebook
// does.
func (r *run) samples(f int, valid *feed.Images, predictions []prediction, threshold float64) error {
	const rows = 10
	area := func(i int) (n int) {
		for _, v := range predictions[i].target {
			n += int(v)
		}
		return n
	}
	order := make([]int, valid.Len())
	areas := make([]int, valid.Len())
	for i := range order {
		order[i], areas[i] = i, area(i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(areas[b], areas[a]) })
	var samples []report.Sample
	for _, i := range order[:min(rows, len(order))] {
		film, err := r.film(valid, i)
		if err != nil {
			return err
		}
		target := image.NewGray(film.Rect)
		for j, v := range predictions[i].target {
			target.Pix[j] = v * 255
		}
		dice := metric.Compare(predictions[i].prob, predictions[i].target, threshold, metric.Noise{}).Dice()
		samples = append(samples, report.Sample{
			Caption: fmt.Sprintf("%s  Dice %.3f", valid.Name(i), dice),
			Image:   film, Target: target, Prob: predictions[i].prob, Threshold: threshold,
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
func (r *run) predictTest(ctx context.Context, f int, trainer *train.Trainer) error {
	if r.test.Len() == 0 {
		return nil
	}
	loader, err := r.loader(r.test)
	if err != nil {
		return err
	}
	r.Progress.Start(fmt.Sprintf("fold %d, test images", f), r.test.Len())
	defer r.Progress.End()
	return trainer.Predict(ctx, loader, false, func(p train.Prediction) error {
		if r.testSum[p.Index] == nil {
			r.testSum[p.Index] = make([]float32, len(p.Prob))
		}
		for i, v := range p.Prob {
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
	epochs   []report.Epoch
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

func (h *history) epoch(e train.Epoch) {
	h.epochs = append(h.epochs, report.Epoch(e))
	h.loss.ValidAt = append(h.loss.ValidAt, len(h.loss.Train))
	h.loss.Valid = append(h.loss.Valid, e.ValidLoss)
}

func (h *history) plot(out output, f int) error {
	if len(h.loss.Train) == 0 {
		return nil
	}
	if err := report.LossPlot(out.path("loss_fold%d.png", f), fmt.Sprintf("Fold %d, loss", f), h.loss); err != nil {
		return err
	}
	return report.SchedulePlot(out.path("rates_fold%d.png", f), fmt.Sprintf("Fold %d, schedule", f), h.rates, h.momentum)
}
