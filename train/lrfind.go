package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
)

// FindOptions are optional settings of [Learner.FindRate].
type FindOptions struct {
	Start, End []float64 // rates of the first and after the last iteration, per layer group; nil means 1e-7 and 10
	Iterations int       // 0 means 100
	NoStop     bool      // continue when the loss explodes
	Frozen     bool      // train as in a frozen [Phase]

	// Each is called for every iteration. An error ends the search; [Stop] ends
	// it without an error.
	Each func(RatePoint) error
}

// A RatePoint is one iteration of a search for a learning rate.
type RatePoint struct {
	Rate   float64 // rate of the last layer group
	Loss   float64 // before the step with that rate
	Smooth float64 // running mean of the losses so far; NaN after a loss that is NaN
}

// FindRate trains with a rate that grows by the same factor at each iteration and
// returns the losses. A good rate for training lies where they fall fastest, well
// before they explode (Smith 2015, https://arxiv.org/abs/1506.01186); see
// [SteepestRate] and [ValleyRate]. The search ends after opt.Iterations, or when
// the smoothed loss exceeds four times its minimum, or when a loss or gradient is
// not a number. Afterwards, also after an error, the parameters and running
// statistics of the model are restored exactly. Hooks are not called. opt may be
// nil.
//
// An iteration is a step of as many micro-batches as the learner accumulates; its
// loss is their mean. When source ends, it is read again from the start.
//
// With the accumulation [Notebook] an iteration is a micro-batch and there is no
// step, because the notebook's optimizer obeys only its own callback, so the
// losses do not depend on the rate. Use [Mean] to search rates.
//
// Source: fastai 1.0.54, train.py, lr_find; callbacks/lr_finder.py.
func (l *Learner) FindRate(ctx context.Context, source feed.Source, opt *FindOptions) (points []RatePoint, err error) {
	if !l.busy.TryLock() {
		return nil, ErrBusy
	}
	defer l.busy.Unlock()
	if l.parts.Group != nil {
		return nil, errors.New("train: several processes cannot search for a rate; search in one, with as many images a step")
	}
	o := FindOptions{}
	if opt != nil {
		o = *opt
	}
	groups := len(l.groups)
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
	case len(o.Start) != groups || len(o.End) != groups:
		return nil, fmt.Errorf("train: search from %d to %d rates for %d layer groups", len(o.Start), len(o.End), groups)
	case source.Batches() == 0:
		return nil, fmt.Errorf("train: no training batch in an epoch of %d images; use a smaller batch size", source.Len())
	}
	for g := range o.Start {
		if growth := o.End[g] / o.Start[g]; !(o.Start[g] > 0) || !(growth > 0) || math.IsInf(growth, 0) {
			return nil, fmt.Errorf("train: search from rate %v to %v, wanted positive numbers", o.Start[g], o.End[g])
		}
	}
	before, err := nn.SaveState(l.model)
	if err != nil {
		return nil, fmt.Errorf("train: before the search for a rate: %w", err)
	}
	at := l.at
	l.at.Phase = nil
	err = l.withData(ctx, source, nil, func() error {
		return l.with(o.Frozen, growing{o.End}, o.Iterations, o.Start, func(r *run) error {
			r.silent = true
			points, err = r.search(ctx, source, o)
			return err
		})
	})
	l.at = at
	return points, errors.Join(err, nn.LoadState(l.model, before))
}

// search is FindRate without restoring the model.
func (r *run) search(ctx context.Context, source feed.Source, o FindOptions) (points []RatePoint, err error) {
	var (
		micro   = r.cfg.MicroBatches // micro-batches per iteration
		pending metric.Mean          // their losses
		best    = math.Inf(1)
		batches = 0
	)
	if r.cfg.Accumulation == Notebook {
		micro = 1
	}
	for e := 0; ; e++ {
		number := 0 // in the epoch
		for b, err := range r.batchesOf(source, e, 0) {
			var loss float64
			if err == nil {
				err = context.Cause(ctx)
			}
			if err == nil {
				r.at.Batch = batches
				loss, err = r.searchBatch(b)
			}
			var bad *badNumber
			switch {
			case errors.As(err, &bad):
				loss = math.NaN()
			case context.Cause(ctx) != nil && errors.Is(err, context.Cause(ctx)):
				return points, &cancelled{fmt.Sprintf("the search for a rate, after %d iterations", len(points)), context.Cause(ctx)}
			case err != nil:
				return points, fmt.Errorf("train: search for a rate, epoch %d: batch %d: %w", e, number, err)
			}
			pending.Add(loss, b.N)
			batches++
			number++
			if batches%micro != 0 && bad == nil {
				continue
			}
			r.at.Loss.add(pending.Value())
			rates, _ := r.schedule.At(r.at.Iteration, r.iterations, r.highest)
			p := RatePoint{rates[len(rates)-1], pending.Value(), r.at.Loss.value()}
			points = append(points, p)
			pending = metric.Mean{}
			r.at.Iteration++
			if err := moment(o.Each, p); errors.Is(err, Stop) {
				return points, nil
			} else if err != nil {
				return points, err
			}
			best = min(best, p.Smooth)
			if len(points) == o.Iterations || bad != nil || p.Smooth > 4*best && !o.NoStop {
				return points, nil
			}
		}
		if number == 0 {
			return points, fmt.Errorf("train: search for a rate, epoch %d: the source yields no batch", e)
		}
	}
}

// searchBatch trains on one micro-batch and returns its loss.
func (r *run) searchBatch(b *feed.Batch) (loss float64, err error) {
	if err := r.checkTraining(b); err != nil {
		return 0, err
	}
	loss, err = r.gradients(b, b.N)
	if err != nil || r.cfg.Accumulation == Notebook {
		return loss, err
	}
	return loss, r.accumulator.endBatch(&r.at.Gathered, r.stepper)
}

// growing is the schedule of a search. The highest rates of its phase are the
// rates to start with.
type growing struct{ end []float64 }

// findMomentum is the momentum of a search: the first beta of fastai's AdamW,
// which lr_find does not change.
const findMomentum = 0.9

// At implements [Schedule].
func (g growing) At(i, n int, start []float64) (rates []float64, momentum float64) {
	rates = make([]float64, len(start))
	for j, s := range start {
		rates[j] = s * math.Pow(g.end[j]/s, float64(i)/float64(n))
	}
	return rates, findMomentum
}

// usable returns the points of a search from which rates are suggested. It leaves
// out the first tenth, where rates are too low to matter, the last five, where the
// loss explodes, and points that are not numbers.
//
// Source: fastai 2.7.19, callback/schedule.py, lr_find.
func usable(points []RatePoint) ([]RatePoint, error) {
	const last, least = 5, 5
	first := len(points) / 10
	if len(points) < first+last+least {
		return nil, fmt.Errorf("train: %d points of a search, wanted at least %d; search longer", len(points), last+least+1)
	}
	points = points[first : len(points)-last]
	if bad := slices.IndexFunc(points, func(p RatePoint) bool { return math.IsNaN(p.Smooth) }); bad >= 0 {
		points = points[:bad]
	}
	if len(points) < least {
		return nil, errors.New("train: the losses of the search are not numbers; look at the images with data.Check")
	}
	return points, nil
}

// SteepestRate returns the rate at which the loss of a search falls fastest. The
// losses are smoothed first, over a tenth of the points to both sides, so that
// differences between batches do not count as a fall. Only points before the lowest
// smoothed loss count, because the loss may fall again after it explodes. It needs
// at least 11 points.
func SteepestRate(points []RatePoint) (float64, error) {
	points, err := usable(points)
	if err != nil {
		return 0, err
	}
	reach := max(len(points)/10, 1)
	losses := smoothLosses(points, reach)
	fall := losses[0] - slices.Min(losses)
	if exploded := slices.IndexFunc(losses, func(v float64) bool { return v > losses[0]+fall/4 }); exploded > 0 {
		losses = losses[:exploded]
	}
	// Near the end the mean covers fewer points, and a single batch has more
	// weight.
	last := min(slices.Index(losses, slices.Min(losses)), len(points)-1-reach)
	first := min(reach, last)
	steepest, at := math.Inf(1), first
	for i := first; i <= last; i++ {
		a, b := max(i-1, 0), min(i+1, len(losses)-1)
		if slope := (losses[b] - losses[a]) / float64(b-a); slope < steepest {
			steepest, at = slope, i
		}
	}
	return points[at].Rate, nil
}

// smoothLosses returns the losses, each averaged with its neighbours up to reach
// points away, with weights that fall to zero there. Near the ends it uses fewer
// neighbours, the same number on both sides, so that a straight line stays
// straight.
func smoothLosses(points []RatePoint, reach int) []float64 {
	out := make([]float64, len(points))
	for i := range out {
		near := min(reach, i, len(points)-1-i)
		sum, weights := 0.0, 0.0
		for d := -near; d <= near; d++ {
			w := float64(near + 1 - max(d, -d))
			sum, weights = sum+w*points[i+d].Loss, weights+w
		}
		out[i] = sum / weights
	}
	return out
}

// ValleyRate returns a rate from the longest valley of a search's smoothed losses:
// the longest sequence of points, not necessarily neighbours, of falling loss. The
// rate is that in the middle of the second third of the valley. It needs at least
// 11 points.
//
// Source: fastai 2.7.19, callback/schedule.py, valley, the suggestion of its
// lr_find; its smoothed losses are the same running mean as fastai 1's.
func ValleyRate(points []RatePoint) (float64, error) {
	points, err := usable(points)
	if err != nil {
		return 0, err
	}
	longest := make([]int, len(points)) // length of the longest valley that ends at each point
	start, end := 0, 0
	for i := range longest {
		longest[i] = 1
		for j := range i {
			if points[i].Smooth < points[j].Smooth && longest[i] < longest[j]+1 {
				longest[i] = longest[j] + 1
			}
			if longest[end] < longest[i] {
				end = i
				start = end - longest[end]
			}
		}
	}
	third := float64(end-start) / 3
	return points[start+int(third)+int(third/2)].Rate, nil
}
