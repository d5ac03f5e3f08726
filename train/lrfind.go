package train

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
)

// FindOptions are what [Trainer.FindRate] may be told.
type FindOptions struct {
	Start, End []float64 // rates of the first and after the last iteration, per layer group; nil means 1e-7 and 10
	Iterations int       // 0 means 100
	NoStop     bool      // go on when the loss explodes
	Frozen     bool      // train as in a frozen [Phase]
}

// A RatePoint is one iteration of a search for a learning rate.
type RatePoint struct {
	Rate   float64 // of the last layer group
	Loss   float64 // before the step with that rate
	Smooth float64 // running mean of the losses so far; NaN from a loss on that is
}

// FindRate trains with a rate that grows by the same factor at each iteration and
// returns the losses met on the way: the rate to train with lies where they fall
// fastest, well before they explode (Smith 2015, https://arxiv.org/abs/1506.01186).
// The search ends after opt.Iterations, or when the smoothed loss exceeds four
// times its minimum or is not a number. The model's parameters and running
// statistics are then as they were, to the bit, and so they are after an error.
// opt may be nil.
//
// An iteration is a step: as many micro-batches as the trainer accumulates, whose
// mean loss counts. Source is read again from the start as often as needed. The
// observer is told of each iteration as of a batch, and of each step.
//
// Under [Kernel] an iteration is a micro-batch and there is no step, because the
// notebook's optimizer ignores everyone but its own callback: the losses do not
// depend on the rate. Find rates under [Default].
//
// Source: fastai 1.0.54, train.py, lr_find; callbacks/lr_finder.py.
func (t *Trainer) FindRate(ctx context.Context, source feed.Source, opt *FindOptions) (points []RatePoint, err error) {
	o := FindOptions{}
	if opt != nil {
		o = *opt
	}
	groups := len(t.model.LayerGroups())
	if o.Iterations == 0 {
		o.Iterations = 100
	}
	if o.Start == nil {
		o.Start = SameRates(1e-7, groups)
	}
	if o.End == nil {
		o.End = SameRates(10, groups)
	}
	switch {
	case o.Iterations < 0:
		return nil, fmt.Errorf("train: search of %d iterations, wanted at least 1", o.Iterations)
	case groups == 0 || len(o.Start) != groups || len(o.End) != groups:
		return nil, fmt.Errorf("train: search from %d to %d rates for %d layer groups", len(o.Start), len(o.End), groups)
	case source.Batches() == 0:
		return nil, fmt.Errorf("train: no training batch in an epoch; use a smaller batch size")
	}
	for g := range o.Start {
		if growth := o.End[g] / o.Start[g]; !(o.Start[g] > 0) || !(growth > 0) || math.IsInf(growth, 0) {
			return nil, fmt.Errorf("train: search from rate %v to %v, wanted positive numbers", o.Start[g], o.End[g])
		}
	}
	before, err := nn.SaveState(t.model)
	if err != nil {
		return nil, fmt.Errorf("train: before the search for a rate: %w", err)
	}
	err = t.with(o.Frozen, growing(o), func(r *run) error {
		points, err = r.search(ctx, source, o)
		return err
	})
	return points, errors.Join(err, nn.LoadState(t.model, before))
}

// search is FindRate without the way back.
func (r *run) search(ctx context.Context, source feed.Source, o FindOptions) (points []RatePoint, err error) {
	var (
		micro   = r.opt.Accumulate // micro-batches an iteration
		pending metric.Mean        // their losses
		best    = math.Inf(1)
		batches = 0
	)
	if r.opt.Recipe == Kernel {
		micro = 1
	}
	for e := 0; ; e++ {
		epochStart := batches
		for b, err := range source.Epoch(e, 0) {
			var loss float64
			if err == nil {
				err = ctx.Err()
			}
			if err == nil {
				loss, err = r.searchBatch(b)
			}
			if err != nil {
				return points, fmt.Errorf("train: search for a rate, epoch %d: batch %d: %w", e, batches-epochStart, err)
			}
			pending.Add(loss, b.N)
			batches++
			if batches%micro != 0 {
				continue
			}
			r.loss.add(pending.Value())
			rates, momentum := r.schedule.At(r.iteration)
			p := RatePoint{rates[len(rates)-1], pending.Value(), r.loss.value()}
			points = append(points, p)
			if r.opt.Observe.Batch != nil {
				r.opt.Observe.Batch(BatchInfo{e, r.iteration, rates, momentum, p.Loss, r.stepper.norm})
			}
			pending = metric.Mean{}
			r.iteration++
			best = min(best, p.Smooth)
			exploded := p.Smooth > 4*best || math.IsNaN(p.Smooth)
			if r.iteration == o.Iterations || exploded && !o.NoStop {
				return points, nil
			}
		}
		if batches == epochStart {
			return points, fmt.Errorf("train: search for a rate, epoch %d: the source yields no batch", e)
		}
	}
}

// searchBatch trains on one micro-batch and returns its loss.
func (r *run) searchBatch(b *feed.Batch) (loss float64, err error) {
	r.stepper.norm = math.NaN()
	if r.opt.Recipe == Kernel {
		return r.gradients(b)
	}
	r.accumulator.beginBatch(b.N, true)
	if loss, err = r.gradients(b); err != nil {
		return 0, err
	}
	return loss, r.accumulator.endBatch(r.stepper)
}

// growing is the schedule of a search.
type growing FindOptions

// Momentum of a search: the first beta of fastai's AdamW, which lr_find leaves as
// it is.
const findMomentum = 0.9

func (g growing) At(i int) (rates []float64, momentum float64) {
	rates = make([]float64, len(g.Start))
	for j, start := range g.Start {
		rates[j] = start * math.Pow(g.End[j]/start, float64(i)/float64(g.Iterations))
	}
	return rates, findMomentum
}

// SteepestRate returns the rate at which the smoothed loss of a search falls
// fastest, leaving out the first ten points, where it still settles, and the last
// five, where it explodes. It needs at least 17 points.
//
// Source: fastai 1.0.54, basic_train.py, Recorder.plot with suggestion=True.
func SteepestRate(points []RatePoint) (float64, error) {
	const first, last = 10, 5
	if len(points) < first+last+2 {
		return 0, fmt.Errorf("train: %d points of a search, wanted at least %d; search longer", len(points), first+last+2)
	}
	points = points[first : len(points)-last]
	steepest, at := math.Inf(1), -1
	for i := range points {
		a, b := max(i-1, 0), min(i+1, len(points)-1)
		if slope := (points[b].Smooth - points[a].Smooth) / float64(b-a); slope < steepest {
			steepest, at = slope, i
		}
	}
	if at < 0 {
		return 0, errors.New("train: the losses of the search are not numbers; look at the images with data.Check")
	}
	return points[at].Rate, nil
}
