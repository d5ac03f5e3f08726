package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// standing is the position of a run, without its tensors.
type standing struct {
	Done   []donePhase `json:"done"`
	Epoch  int         `json:"epoch"` // the current or the next epoch, counted over the whole run
	Step   int         `json:"step"`  // number of steps in the whole run
	Scaler scaler      `json:"scaler"`
	Phase  *underway   `json:"phase,omitempty"` // nil between phases
}

type donePhase struct {
	Phase  string         `json:"phase"` // Phase.key
	Epochs []metric.Epoch `json:"epochs"`
}

// underway is the position in a phase between two batches.
type underway struct {
	Phase     string         `json:"phase"`
	Images    int            `json:"images"`  // number of images of the source
	Batches   int            `json:"batches"` // in an epoch
	Epochs    []metric.Epoch `json:"epochs"`  // epochs that are done
	Batch     int            `json:"batch"`   // batches done in the current epoch
	Seen      int            `json:"seen"`    // images in these batches
	Elapsed   time.Duration  `json:"elapsed"` // time since the epoch began
	Iteration int            `json:"iteration"`
	Loss      smoothed       `json:"loss"`
	Gathered  gathered       `json:"gathered"`
}

// Fit trains phases, one after the other, and returns their epochs. valid may be
// nil. Epochs of source are counted over the whole run, so that each has its own
// order and transforms.
//
// When ctx is done, Fit stops between two batches and returns an error that wraps
// the error of ctx. If the loss or a clipped gradient is not finite, it returns an
// error before this reaches the weights. With an error it also returns the epochs
// so far, and the model keeps its training so far. Another call of Fit does not
// continue an interrupted phase; for that, load the state that a hook saved with
// [Learner.LoadState].
//
// After LoadState, pass the phases of the run whose state it is. Fit skips what
// was done and returns its epochs unchanged.
func (l *Learner) Fit(ctx context.Context, source, valid feed.Source, phases ...Phase) (epochs []metric.Epoch, err error) {
	if !l.busy.TryLock() {
		return nil, ErrBusy
	}
	defer l.busy.Unlock()
	for _, p := range phases {
		if err := p.Check(len(l.groups)); err != nil {
			return nil, err
		}
	}
	if source.Batches() == 0 {
		return nil, fmt.Errorf("train: no training batch in an epoch of %d images; use a smaller batch size", source.Len())
	}
	if valid != nil && valid.Batches() == 0 {
		valid = nil
	}
	if err := l.align(false); err != nil {
		return nil, err
	}
	train := func() error {
		for _, p := range phases {
			rows, err := l.fitPhase(ctx, p, source, valid)
			epochs = append(epochs, rows...)
			if err != nil {
				return err
			}
		}
		return nil
	}
	if l.called+len(phases) <= len(l.at.Done) { // all of them before LoadState
		err = train()
	} else {
		err = l.withData(ctx, source, l.parts.Hooks, train)
	}
	if errors.Is(err, Stop) {
		return epochs, nil
	}
	return epochs, err
}

// fitPhase trains a phase, or what remains of it.
func (l *Learner) fitPhase(ctx context.Context, p Phase, source, valid feed.Source) (rows []metric.Epoch, err error) {
	if done := l.called; done < len(l.at.Done) { // before LoadState
		if d := l.at.Done[done]; d.Phase != p.key() {
			return nil, fmt.Errorf("train: the state's phase %d is %s, now it is %s; go on with what was begun, or start anew", done, d.Phase, p.key())
		}
		l.called++
		return l.at.Done[done].Epochs, nil
	}
	at := &underway{Phase: p.key(), Images: source.Len(), Batches: source.Batches()}
	if l.resumed != nil {
		switch was := l.at.Phase; {
		case was.Phase != at.Phase:
			return nil, fmt.Errorf("train: the state is of phase %s, now it is %s; go on with what was begun, or start anew", was.Phase, at.Phase)
		case was.Images != at.Images || was.Batches != at.Batches:
			return nil, fmt.Errorf("train: the state is of training on %d images in %d batches, now there are %d in %d; go on with the same data, or start anew",
				was.Images, was.Batches, at.Images, at.Batches)
		}
	} else {
		l.at.Phase = at
	}
	nn.Scope(func() {
		err = l.with(p.Frozen, p.schedule(), source.Batches()*p.Epochs, p.Rates, func(r *run) error {
			l.run, r.phase = r, p
			defer func() { l.run = nil }()
			if err := r.resume(); err != nil {
				return err
			}
			return r.train(ctx, source, valid)
		})
	})
	if l.at.Phase != nil { // the phase was interrupted
		rows = l.at.Phase.Epochs
		if l.at.Phase.Batch > 0 {
			l.at.Epoch++
		}
		l.at.Phase = nil
		return rows, err
	}
	return l.at.Done[len(l.at.Done)-1].Epochs, err
}

// with runs f with a new optimizer. At the end it frees the state of the
// optimizer and the gradients.
func (l *Learner) with(frozen bool, s Schedule, iterations int, rates []float64, f func(*run) error) (err error) {
	nn.Scope(func() {
		if err = l.freeze(frozen); err != nil {
			return
		}
		if l.device.CUDA() {
			nn.SearchConvolutions(true)
			defer nn.SearchConvolutions(false)
		}
		r := &run{Learner: l, schedule: s, iterations: iterations, highest: rates, accumulator: newAccumulator(l.cfg), at: &underway{}}
		if l.at.Phase != nil {
			r.at = l.at.Phase
		}
		if r.optimizer, err = l.parts.Optimizer(l.groups); err != nil {
			return
		}
		if r.reducer, err = l.reducer(); err != nil {
			return
		}
		if r.reducer != nil {
			defer r.reducer.Close()
		}
		r.recorder.off = !r.recordable()
		defer r.recorder.close()
		defer r.forget()
		r.stepper = &stepper{params: l.params, clip: l.cfg.Clip, scaler: &l.at.Scaler, step: r.step}
		defer func() { err = errors.Join(err, nn.DropGrad(l.params)) }()
		err = f(r)
	})
	return err
}

// freeze sets which parameters are trained: all, or only those of the last
// group and of every batch norm.
func (l *Learner) freeze(frozen bool) error {
	return nn.Try(func() {
		for i, g := range l.groups {
			for _, p := range g {
				_, bn := p.Owner.(*nn.BatchNorm2d)
				nn.SetRequiresGrad(p.Tensor, !frozen || bn || i == len(l.groups)-1)
			}
		}
	})
}

// A run holds the state of a phase that is being trained, or of a search for a
// rate.
type run struct {
	*Learner
	phase       Phase
	schedule    Schedule
	iterations  int // planned
	highest     []float64
	optimizer   nn.Optimizer
	accumulator accumulator
	reducer     *dist.Reducer // nil for one process
	stepper     *stepper
	recorder    recorder
	open        []openBatch
	at          *underway
	silent      bool      // hooks are not called
	epochEnd    bool      // after the epoch's last training batch
	begun       time.Time // when the epoch would have begun without interruptions
	end         error     // Stop or EndPhase, once a hook returned it
	elsewhere   bool      // end comes from another process
}

// hooks calls the functions of one moment. If a hook returns Stop or EndPhase,
// the run ends when everything that belongs to the batch or epoch is done.
func (r *run) hooks(one func(Hook) error) error {
	if r.silent {
		return nil
	}
	err := call(r.parts.Hooks, one)
	if !ended(err) {
		return err
	}
	if r.end == nil || errors.Is(err, Stop) {
		r.end = err
	}
	return nil
}

// stopping returns whether a hook has asked to end the run.
func (l *Learner) stopping() bool { return l.run != nil && errors.Is(l.run.end, Stop) }

// pause lets hooks save the state. While several processes hold separately
// gathered gradients, which no state contains, it does nothing; the next pause
// comes after their step.
func (r *run) pause() error {
	if r.reducer != nil && r.at.Gathered.Batches > 0 {
		return nil
	}
	r.at.Elapsed = time.Since(r.begun)
	r.pausing = true
	defer func() { r.pausing = false }()
	return r.hooks(func(h Hook) error { return moment(h.Pause, r.Learner) })
}

// train runs the epochs that remain.
func (r *run) train(ctx context.Context, source, valid feed.Source) error {
	if len(r.at.Epochs) == 0 && r.at.Batch == 0 {
		if err := r.hooks(func(h Hook) error { return moment(h.PhaseStart, r.phase) }); err != nil {
			return err
		}
	}
	for r.Learner.at.Phase != nil && r.end == nil {
		if err := r.epoch(ctx, source, valid); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(r.end, Stop) && r.elsewhere:
		return ErrElsewhere
	case errors.Is(r.end, Stop):
		return Stop
	}
	if r.Learner.at.Phase != nil {
		if err := r.finish(); err != nil {
			return err
		}
		return r.pause()
	}
	return nil
}

// finish ends the phase.
func (r *run) finish() error {
	l := r.Learner
	err := r.hooks(func(h Hook) error { return moment(h.PhaseEnd, r.phase) })
	if err != nil {
		return err
	}
	if r.at.Batch > 0 { // ended in the middle of an epoch
		l.at.Epoch++
	}
	l.at.Done = append(l.at.Done, donePhase{r.at.Phase, r.at.Epochs})
	l.at.Phase = nil
	l.called++
	return nil
}

// where names the epoch under way, for messages.
func (r *run) where() string {
	return fmt.Sprintf("%sepoch %d", r.phase.where(), r.Learner.at.Epoch)
}

// key returns a text that is equal for equal phases.
func (p Phase) key() string {
	text, err := json.Marshal(p)
	if err != nil { // a rate is not a number, which check reports
		return err.Error()
	}
	return string(text)
}

func (p Phase) where() string {
	if p.Name == "" {
		return ""
	}
	return p.Name + ", "
}

// fail adds to an error the place where it happened.
func (r *run) fail(ctx context.Context, part string, batch int, err error) error {
	cause := context.Cause(ctx)
	if errors.Is(err, ErrElsewhere) {
		cause = ErrElsewhere
	}
	if cause != nil && errors.Is(err, cause) {
		return &cancelled{fmt.Sprintf("%s%s, after %d batches", r.where(), part, batch), cause}
	}
	return fmt.Errorf("train: %s: %sbatch %d: %w", r.where(), part, batch, err)
}

// cancelled is the error if a context ended the work.
type cancelled struct {
	where string
	cause error
}

func (c *cancelled) Error() string {
	if errors.Is(c.cause, context.DeadlineExceeded) {
		return "train: out of time in " + c.where
	}
	return "train: cancelled in " + c.where
}

func (c *cancelled) Unwrap() error { return c.cause }

func (r *run) epoch(ctx context.Context, source, valid feed.Source) error {
	l, at := r.Learner, r.at
	r.begun = time.Now().Add(-at.Elapsed)
	r.epochEnd = false
	if at.Batch == 0 {
		if err := r.hooks(func(h Hook) error { return moment(h.EpochStart, l.at.Epoch) }); err != nil {
			return err
		}
	}
	for b, err := range l.batchesOf(source, l.at.Epoch, at.Batch) {
		var images int
		if err == nil {
			images, err = r.images(ctx, b.N)
		}
		if err != nil || !r.recorder.repeats(b) {
			if open := r.settle(ctx, source, 0); open != nil {
				return open
			}
		}
		if err == nil {
			err = r.batch(source, b, images)
		}
		if err != nil {
			if open := r.settle(ctx, source, 0); open != nil {
				return open
			}
			return r.fail(ctx, "", at.Batch, err)
		}
		if r.ahead() {
			if err := r.settle(ctx, source, 1); err != nil {
				return err
			}
			if r.end == nil {
				continue
			}
		}
		if err := r.settle(ctx, source, 0); err != nil {
			return err
		}
		ended, err := r.ended()
		if err != nil {
			return err
		}
		if ended && errors.Is(r.end, EndPhase) {
			return nil // and train ends it, before the next pause
		}
		if err := r.pause(); err != nil || ended {
			return err
		}
	}
	if err := r.settle(ctx, source, 0); err != nil { // of a source that yields too few
		return err
	}
	if at.Batch != at.Batches {
		return fmt.Errorf("train: %s: the source yields %d batches, not %d as it says", r.where(), at.Batch, at.Batches)
	}
	row := metric.Epoch{Phase: r.phase.Name, Epoch: l.at.Epoch, TrainLoss: at.Loss.value()}
	rates, _ := r.schedule.At(at.Iteration-1, r.iterations, r.highest)
	row.Rate = slices.Max(rates)
	r.epochEnd = true
	err := r.accumulator.endTraining(&at.Gathered, r.stepper)
	if trained := time.Since(r.begun).Seconds(); trained > 0 {
		row.Speed = float64(at.Seen) / trained
	}
	if err == nil {
		err = r.align(true)
	}
	if err == nil && valid != nil {
		row.Values, err = r.validate(ctx, valid)
	}
	if err == nil {
		err = r.accumulator.endEpoch(&at.Gathered, r.stepper)
	}
	if err == nil {
		err = r.checkWeights()
	}
	if bad := (*badNumber)(nil); errors.As(err, &bad) {
		err = fmt.Errorf("train: %s, its end: %w", r.where(), err)
	}
	if err != nil {
		return err
	}
	row.Time = time.Since(r.begun)
	at.Epochs = append(at.Epochs, row)
	l.at.Epoch++
	at.Batch, at.Seen, at.Elapsed = 0, 0, 0
	if err := r.hooks(func(h Hook) error { return moment(h.EpochEnd, row) }); err != nil {
		return err
	}
	if _, err := r.ended(); err != nil {
		return err
	}
	if len(at.Epochs) == r.phase.Epochs || errors.Is(r.end, EndPhase) {
		if err := r.finish(); err != nil {
			return err
		}
	}
	r.begun = time.Now()
	return r.pause()
}

// checkWeights returns an error if a parameter or running statistic is not
// finite: the last step may have broken weights before any loss showed it.
func (l *Learner) checkWeights() error {
	if l.device == nn.Meta {
		return nil
	}
	norm, err := nn.StateNorm(nn.State(l.model))
	if err == nil && !finite(norm) {
		err = &badNumber{"the norm of the weights", norm}
	}
	return err
}

// rates returns the learning rates and the momentum of the current iteration.
func (r *run) rates() (rates []float64, momentum float64, err error) {
	rates, momentum = r.schedule.At(r.at.Iteration, r.iterations, r.highest)
	if len(rates) != len(r.groups) {
		return nil, 0, fmt.Errorf("the schedule gives %d rates for %d layer groups", len(rates), len(r.groups))
	}
	for g, rate := range rates {
		if !(rate >= 0) || math.IsInf(rate, 1) || !finite(momentum) {
			return nil, 0, fmt.Errorf("the schedule gives rate %v to layer group %d, with momentum %v", rate, g, momentum)
		}
	}
	return rates, momentum, nil
}

// step updates the parameters with the current rates and momentum.
func (r *run) step(divisor float64) error { return r.stepUnless(torch.Tensor{}, divisor) }

// stepUnless is step, which an nn.Skipper leaves out if skip, where it is given, is 1.
func (r *run) stepUnless(skip torch.Tensor, divisor float64) error {
	rates, momentum, err := r.rates()
	if err != nil {
		return err
	}
	info := StepInfo{r.Learner.at.Step, r.at.Iteration, r.epochEnd, divisor, rates, momentum}
	if err := r.hooks(func(h Hook) error { return moment(h.StepStart, info) }); err != nil {
		return err
	}
	hyper := make([]nn.Hyper, len(rates))
	for g, rate := range rates {
		hyper[g] = nn.Hyper{Rate: rate, Momentum: momentum, WeightDecay: r.cfg.WeightDecay}
	}
	if skip.T != nil {
		err = r.optimizer.(nn.Skipper).StepUnless(skip, hyper)
	} else {
		err = r.optimizer.Step(hyper)
	}
	if err != nil {
		return err
	}
	r.Learner.at.Step++
	return r.hooks(func(h Hook) error { return moment(h.StepEnd, info) })
}

// batch trains on one batch, the share of this process of a batch of that many
// images: forward, loss, backward, and a step if it is time.
func (r *run) batch(source feed.Source, b *feed.Batch, images int) error {
	at := r.at
	if at.Batch >= at.Batches {
		return fmt.Errorf("the source yields more than the %d batches that it says", at.Batches)
	}
	rates, momentum, err := r.rates()
	if err != nil {
		return err
	}
	info := BatchInfo{r.Learner.at.Epoch, at.Iteration, images, rates, momentum, math.NaN(), math.NaN(), r.Learner.at.Scaler.Skipped}
	if err := r.checkTraining(b); err != nil {
		return err
	}
	if r.recorded(b) && r.recorder.queues {
		err = r.queue(b, info)
	} else {
		err = r.learn(b, &info, source)
	}
	if err != nil {
		return err
	}
	at.Iteration++
	at.Batch++
	at.Seen += images
	return nil
}

// learn computes the gradients of a batch, makes a step if it is time, and ends the batch.
func (r *run) learn(b *feed.Batch, info *BatchInfo, source feed.Source) (err error) {
	r.stepper.norm = math.NaN()
	step := r.Learner.at.Step
	if info.Loss, err = r.gradients(b, info.Images); err == nil {
		err = r.accumulator.endBatch(&r.at.Gathered, r.stepper)
	}
	if err != nil {
		return badBatch(err, step, info, source, b)
	}
	info.Norm, info.Skipped = r.stepper.norm, r.Learner.at.Scaler.Skipped
	return r.batchEnd(*info)
}

// batchEnd ends a batch whose loss is known.
func (r *run) batchEnd(info BatchInfo) error {
	r.at.Loss.add(info.Loss)
	return r.hooks(func(h Hook) error { return moment(h.BatchEnd, info) })
}

// badBatch adds to an error about a number which batch it was.
func badBatch(err error, step int, info *BatchInfo, source feed.Source, b *feed.Batch) error {
	if bad := (*badNumber)(nil); errors.As(err, &bad) {
		return fmt.Errorf("step %d, learning rate %v, %s: %w", step, slices.Max(info.Rates), films(source, b), err)
	}
	return err
}

// gradients adds the gradients of the batch to those gathered and returns its
// loss. Random numbers in the network depend only on the number of the batch.
func (r *run) gradients(b *feed.Batch, images int) (value float64, err error) {
	stream := []uint64{uint64(r.Learner.at.Epoch), uint64(r.at.Batch)}
	if g := r.parts.Group; g != nil {
		stream = append(stream, uint64(g.Rank()))
	}
	nn.SeedDropout(r.model, r.cfg.Seed, stream...)
	r.accumulator.beginBatch(&r.at.Gathered, images, true)
	completes := r.accumulator.completes(&r.at.Gathered, r.at.Batch+1 == r.at.Batches)
	err = r.inScope(b, func() {
		if r.recorder.repeats(b) {
			value = r.repeatGradients(b, completes)
			return
		}
		loss := r.lossOf(r.uploaded(b))
		// On CUDA the backward pass is queued before the loss is read, so that the
		// device does not wait. On other devices the loss is checked before it
		// changes a gradient.
		if !r.device.CUDA() {
			if value = item(loss); !finite(value) {
				return
			}
		}
		if err := r.backward(r.scaled(loss, b.N), completes); err != nil {
			panic(err)
		}
		if r.device.CUDA() {
			value = item(loss)
		}
	})
	if err == nil && finite(value) {
		value, err = r.meanLoss(value, b.N, images)
	}
	if err == nil && !finite(value) {
		err = &badNumber{"the loss", value}
	}
	return value, err
}

// lossOf returns the loss of uploaded images and masks.
func (r *run) lossOf(images, targets torch.Tensor) torch.Tensor {
	// Result lets the backward pass free each map as soon as it is not needed.
	return nn.Result(func() torch.Tensor {
		return r.loss.Forward(r.scores(nn.Train, r.input.images(images)), r.input.classes(targets))
	})
}

// scaled returns the loss of a batch of n images, times the factors of the accumulation and
// of float16.
func (r *run) scaled(loss torch.Tensor, n int) torch.Tensor {
	if w := r.accumulator.weight(n) * r.Learner.at.Scaler.scale(); w != 1 {
		return nn.MulScalar(loss, w)
	}
	return loss
}

// scores returns the scores of images, in the number type of the model's
// parameters, in whatever type they were computed.
func (l *Learner) scores(mode nn.Mode, x torch.Tensor) torch.Tensor {
	var y torch.Tensor
	forward := func() { y = l.model.Forward(mode, x) }
	switch l.cfg.Precision {
	case BFloat16:
		nn.Autocast(l.device, nn.BFloat16, forward)
	case Float16:
		nn.Autocast(l.device, nn.Half, forward)
	default:
		forward()
	}
	in, out := nn.Shape(x), nn.Shape(y)
	if want := []int64{in[0], int64(l.task.Outputs()), in[2], in[3]}; !slices.Equal(out, want) {
		panic(&nn.Error{Op: "scores", Msg: fmt.Sprintf("the model returns %v; for a task of %d classes with %s it must return %v",
			out, len(l.task.Classes), l.task.Output, want)})
	}
	return nn.To(y, l.device, l.dtype)
}

// validate returns the mean loss over all images of a source, and the metrics.
func (r *run) validate(ctx context.Context, valid feed.Source) (values metric.Values, err error) {
	if err := r.hooks(func(h Hook) error { return event(h.EvalStart) }); err != nil {
		return nil, err
	}
	values, err = r.scoreAll(ctx, valid)
	return values, errors.Join(err, r.hooks(func(h Hook) error { return event(h.EvalEnd) }))
}

// smoothed is an exponential moving average, corrected for its start at zero.
//
// Source: fastai 1.0.54, callback.py, SmoothenValue, and the 0.98 of its Recorder.
type smoothed struct {
	Sum float64 `json:"sum"`
	N   int     `json:"n"`
}

const smoothBeta = 0.98

func (s *smoothed) add(v float64) {
	s.N++
	s.Sum = smoothBeta*s.Sum + (1-smoothBeta)*v
}

func (s *smoothed) value() float64 { return s.Sum / (1 - math.Pow(smoothBeta, float64(s.N))) }
