package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Options are the choices of a training run. The zero value is the notebook's,
// but without accumulation, clipping and normalization of the input.
type Options struct {
	Recipe      Recipe
	Device      nn.Device
	DType       nn.DType // of the model and its input; 0 means float32
	BFloat16    bool     // convolutions in bfloat16 (autocast)
	Input       Input
	Accumulate  int         // micro-batches a step; 0 means 1
	Clip        float64     // largest norm of a gradient; 0 for no clipping
	WeightDecay float64     // 0 means 0.01, fastai's; negative means none
	BatchNorm   float64     // momentum of running statistics; 0 leaves the layers'
	Epsilon     *nn.Epsilon // of Adam; nil means the recipe's
	Threshold   float64     // of the per-epoch Dice; 0 means 0.2, the notebook's
	Noise       metric.Noise
	Observe     Observer
}

// An Observer is told what happens while it happens. Any function may be nil;
// slices are its own. A tensor that it makes is freed when training ends.
type Observer struct {
	Batch func(BatchInfo)
	Step  func(StepInfo)
	Epoch func(Epoch)
}

// A BatchInfo describes a training batch that is done.
type BatchInfo struct {
	Epoch, Iteration int       // counted from 0 in the phase
	Rates            []float64 // in force, per layer group
	Momentum         float64
	Loss             float64
	Norm             float64 // of the gradient before it was clipped at this batch; NaN if it was not
}

// A StepInfo describes a step of the optimizer that is done.
type StepInfo struct {
	Iteration int // the training batches before it, in the phase
	EpochEnd  bool
	Divisor   float64 // of the gathered gradients
	Rates     []float64
	Momentum  float64
}

// An Epoch is what the loop measured in one.
type Epoch struct {
	Phase     string
	Epoch     int     // counted from 0 in the phase
	TrainLoss float64 // running mean of the phase's batch losses, as fastai shows it
	ValidLoss float64 // mean over the validation images; NaN without any
	Dice      float64 // mean over the validation images; NaN without any
	Time      time.Duration
}

// A Phase is a stretch of training under one one-cycle schedule.
type Phase struct {
	Name   string
	Epochs int
	Rates  []float64 // the highest, per layer group; see SameRates and EvenRates
	Frozen bool      // train the last layer group and all batch norms only
}

// A Trainer trains one model. The optimizer's averages start anew with each
// phase, as fastai's do.
type Trainer struct {
	model  Model
	opt    Options
	all    []nn.Named
	epochs int // begun in all phases; the source's number of the next one
}

// New returns a trainer of model, which must live on opt.Device.
func New(model Model, opt Options) (*Trainer, error) {
	if opt.Accumulate == 0 {
		opt.Accumulate = 1
	}
	if opt.DType == 0 {
		opt.DType = nn.Float
	}
	if opt.WeightDecay == 0 {
		opt.WeightDecay = 0.01 // fastai 1.0.54, defaults.wd
	}
	opt.WeightDecay = max(opt.WeightDecay, 0)
	if opt.Threshold == 0 {
		opt.Threshold = metric.KernelThreshold
	}
	switch {
	case opt.Accumulate < 1:
		return nil, fmt.Errorf("train: accumulation of %d micro-batches, wanted at least 1", opt.Accumulate)
	case opt.Clip < 0 || math.IsNaN(opt.Clip):
		return nil, fmt.Errorf("train: gradients clipped to %v, wanted a positive norm, or 0 for none", opt.Clip)
	case opt.BatchNorm < 0 || opt.BatchNorm > 1:
		return nil, fmt.Errorf("train: batch norm momentum %v, wanted a number in (0, 1]", opt.BatchNorm)
	}
	if err := opt.Input.check(); err != nil {
		return nil, err
	}
	if opt.BatchNorm > 0 {
		nn.SetBatchNormMomentum(model, opt.BatchNorm)
	}
	return &Trainer{model: model, opt: opt, all: nn.Parameters(model)}, nil
}

// Fit trains through a phase and returns its epochs. valid may be nil. It stops
// with ctx's error between two batches; the model then is as it was trained so
// far. A loss that is not finite is an error.
func (t *Trainer) Fit(ctx context.Context, p Phase, source, valid feed.Source) ([]Epoch, error) {
	groups := t.model.LayerGroups()
	switch {
	case p.Epochs < 0:
		return nil, fmt.Errorf("train: %d epochs", p.Epochs)
	case len(p.Rates) != len(groups):
		return nil, fmt.Errorf("train: %d learning rates for %d layer groups", len(p.Rates), len(groups))
	case p.Epochs == 0:
		return nil, nil
	case source.Batches() == 0:
		return nil, fmt.Errorf("train: no training batch in an epoch; use a smaller batch size")
	}
	epochs := make([]Epoch, 0, p.Epochs)
	err := t.with(p.Frozen, OneCycle{source.Batches() * p.Epochs, p.Rates}, func(r *run) error {
		for e := range p.Epochs {
			epoch, err := r.epoch(ctx, e, source, valid)
			if err != nil {
				return fmt.Errorf("train: %s, epoch %d: %w", p.Name, e, err)
			}
			epoch.Phase = p.Name
			epochs = append(epochs, epoch)
			if t.opt.Observe.Epoch != nil {
				t.opt.Observe.Epoch(epoch)
			}
		}
		return nil
	})
	return epochs, err
}

// with runs f with a new optimizer, whose averages and the gradients are freed
// at the end.
func (t *Trainer) with(frozen bool, s schedule, f func(*run) error) (err error) {
	nn.Scope(func() {
		groups := t.model.LayerGroups()
		if err = t.freeze(groups, frozen); err != nil {
			return
		}
		var r *run
		if r, err = t.newRun(s, groups); err != nil {
			return
		}
		defer func() { err = errors.Join(err, nn.DropGrad(t.all)) }()
		err = f(r)
	})
	return err
}

// freeze sets which parameters are trained: all, or those of the last group and
// of every batch norm.
func (t *Trainer) freeze(groups [][]nn.Named, frozen bool) error {
	return nn.Try(func() {
		for i, g := range groups {
			for _, p := range g {
				_, bn := p.Owner.(*nn.BatchNorm2d)
				nn.SetRequiresGrad(p.Tensor, !frozen || bn || i == len(groups)-1)
			}
		}
	})
}

// A schedule gives the rates and the momentum in force during iteration i.
type schedule interface {
	At(i int) (rates []float64, momentum float64)
}

// crossEntropy is the loss, of the two classes of a mask.
var crossEntropy = loss.Must(loss.CrossEntropy{}.New(data.Softmax, 2))

// A run is a phase under way.
type run struct {
	*Trainer
	schedule    schedule
	optimizer   nn.Optimizer
	accumulator accumulator
	stepper     *stepper
	iteration   int // training batches done
	epochEnd    bool
	loss        smoothed
}

func (t *Trainer) newRun(s schedule, groups [][]nn.Named) (*run, error) {
	r := &run{
		Trainer:     t,
		schedule:    s,
		accumulator: newAccumulator(t.opt.Recipe, t.opt.Accumulate),
		loss:        smoothed{beta: 0.98}, // fastai 1.0.54, Recorder
	}
	config := nn.DefaultAdam()
	if t.opt.Recipe == Kernel {
		config = nn.KernelAdam()
	}
	if t.opt.Epsilon != nil {
		config.Epsilon = *t.opt.Epsilon
	}
	var err error
	r.optimizer, err = config.New(groups)
	r.stepper = &stepper{params: t.all, clip: t.opt.Clip, step: r.step}
	return r, err
}

// step moves the parameters with the values in force.
func (r *run) step(divisor float64) error {
	rates, momentum := r.schedule.At(r.iteration)
	hyper := make([]nn.Hyper, len(rates))
	for g, rate := range rates {
		hyper[g] = nn.Hyper{Rate: rate, Momentum: momentum, WeightDecay: r.opt.WeightDecay}
	}
	if err := r.optimizer.Step(hyper); err != nil {
		return err
	}
	if r.opt.Observe.Step != nil {
		r.opt.Observe.Step(StepInfo{r.iteration, r.epochEnd, divisor, rates, momentum})
	}
	return nil
}

func (r *run) epoch(ctx context.Context, e int, source, valid feed.Source) (Epoch, error) {
	start := time.Now()
	epoch := r.epochs
	r.epochs++
	result := Epoch{Epoch: e, ValidLoss: math.NaN(), Dice: math.NaN()}
	r.epochEnd = false
	n := 0
	for b, err := range source.Epoch(epoch, 0) {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = r.batch(e, b)
		}
		if err != nil {
			return result, fmt.Errorf("batch %d: %w", n, err)
		}
		n++
	}
	result.TrainLoss = r.loss.value()
	r.epochEnd = true
	if err := r.accumulator.endTraining(r.stepper); err != nil {
		return result, err
	}
	if valid != nil {
		var err error
		result.ValidLoss, result.Dice, err = r.validate(ctx, valid)
		if err != nil {
			return result, fmt.Errorf("validation, %w", err)
		}
	}
	if err := r.accumulator.endEpoch(r.stepper); err != nil {
		return result, err
	}
	result.Time = time.Since(start)
	return result, nil
}

// batch trains on one batch: forward, loss, backward, and a step when it is time.
func (r *run) batch(e int, b *feed.Batch) error {
	r.accumulator.beginBatch(b.N, true)
	loss, err := r.gradients(b)
	if err != nil {
		return err
	}
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return fmt.Errorf("the loss is %v; lower the learning rate, or look at the images with data.Check", loss)
	}
	r.loss.add(loss)
	rates, momentum := r.schedule.At(r.iteration)
	r.stepper.norm = math.NaN()
	if err := r.accumulator.endBatch(r.stepper); err != nil {
		return err
	}
	if r.opt.Observe.Batch != nil {
		r.opt.Observe.Batch(BatchInfo{e, r.iteration, rates, momentum, loss, r.stepper.norm})
	}
	r.iteration++
	return nil
}

// gradients adds the batch's gradients to those gathered and returns its loss.
func (r *run) gradients(b *feed.Batch) (value float64, err error) {
	if err := b.Check(true); err != nil {
		return 0, err
	}
	err = inScope(func() {
		loss := crossEntropy.Forward(r.scores(nn.Train, r.input(b)), targets(b, r.opt.Device))
		value = item(loss)
		if w := r.accumulator.weight(b.N); w != 1 {
			loss = nn.MulScalar(loss, w)
		}
		if err := nn.Backward(loss); err != nil {
			panic(err)
		}
	})
	return value, err
}

// input returns a batch's images as the model takes them.
func (t *Trainer) input(b *feed.Batch) torch.Tensor {
	return t.opt.Input.tensor(b, t.opt.Device, t.opt.DType)
}

// scores returns the class scores of images, in the trainer's element type
// whatever they were computed in.
func (t *Trainer) scores(mode nn.Mode, x torch.Tensor) torch.Tensor {
	if !t.opt.BFloat16 {
		return t.model.Forward(mode, x)
	}
	var y torch.Tensor
	nn.Autocast(t.opt.Device, nn.BFloat16, func() { y = t.model.Forward(mode, x) })
	return nn.To(y, t.opt.Device, t.opt.DType)
}

// validate returns the mean loss and Dice over all images of a source.
func (r *run) validate(ctx context.Context, valid feed.Source) (loss, dice float64, err error) {
	nn.NoGrad(func() { loss, dice, err = r.scoreAll(ctx, valid) })
	return loss, dice, err
}

func (r *run) scoreAll(ctx context.Context, valid feed.Source) (loss, dice float64, err error) {
	var losses, dices metric.Mean
	n := 0
	for b, err := range valid.Epoch(0, 0) {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = b.Check(true)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("batch %d: %w", n, err)
		}
		r.accumulator.beginBatch(b.N, false)
		var value float64
		var prob []float32
		err = inScope(func() {
			scores := r.scores(nn.Eval, r.input(b))
			value = item(crossEntropy.Forward(scores, targets(b, r.opt.Device)))
			prob = slice(foreground(scores))
		})
		if err != nil {
			return 0, 0, fmt.Errorf("batch %d: %w", n, err)
		}
		n++
		losses.Add(value, b.N)
		area := b.H * b.W
		for i := range b.N {
			o := metric.Compare(prob[i*area:(i+1)*area], b.Targets[i*area:(i+1)*area], Foreground, r.opt.Threshold, r.opt.Noise)
			dices.Add(float64(o.KernelDice()), 1)
		}
	}
	return losses.Value(), dices.Value(), nil
}

// smoothed is a mean that forgets, corrected for its start at zero.
//
// Source: fastai 1.0.54, callback.py, SmoothenValue.
type smoothed struct {
	beta, sum float64
	n         int
}

func (s *smoothed) add(v float64) {
	s.n++
	s.sum = s.beta*s.sum + (1-s.beta)*v
}

func (s *smoothed) value() float64 { return s.sum / (1 - math.Pow(s.beta, float64(s.n))) }
