package train

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Static is a model that does the same operations for all images of one shape, without
// random numbers and without reading a value back from the device. On a GPU the gradients
// of its batches are recorded once and then repeated, see [nn.Graph]. Where a batch is a step
// of Adam, a single process gives the device the next batch before it reads the loss of one,
// see [Hook.PauseDue]. *unet.Net is Static.
type Static interface {
	// Static returns whether the model is so.
	Static() bool
}

// Recordings count what a learner recorded on a GPU.
type Recordings struct {
	Steps, Predictions int   // batches that were computed by recorded operations
	Err                error // why a recording failed, if one did; such batches are computed in the usual way, more slowly
}

// Recordings returns what was recorded so far. It may be called at any time.
func (l *Learner) Recordings() Recordings {
	l.predictions.mutex.Lock()
	defer l.predictions.mutex.Unlock()
	return l.recordings
}

// note changes the counts.
func (l *Learner) note(change func(*Recordings)) {
	l.predictions.mutex.Lock()
	defer l.predictions.mutex.Unlock()
	change(&l.recordings)
}

// recordsOn returns whether batches are recorded on a device; tests replace it, as the same
// operations can be repeated on every device.
var recordsOn = nn.Device.CUDA

// recordable returns whether the gradients of a batch are the same operations for all
// batches of one shape: not if a loss of the user's may do anything, if float16's scale
// varies, or if processes exchange statistics.
func (r *run) recordable() bool {
	m, isStatic := r.model.(Static)
	return isStatic && m.Static() && recordsOn(r.device) && r.parts.Loss == nil && r.cfg.Precision != Float16 &&
		!(r.parts.Group != nil && r.cfg.SyncBatchNorm)
}

// queues returns whether a recorded batch can be given to the device with its step, before
// its loss is known: it is all of the step, and the optimizer can leave out a step whose
// gradients are not finite.
func (r *run) queues() bool {
	o, isSkipper := r.optimizer.(nn.Skipper)
	return isSkipper && o.CanSkip() && r.parts.Group == nil && r.cfg.Accumulation == Mean && r.cfg.MicroBatches == 1
}

// A recorder counts the batches of each shape and records the gradients of one shape.
type recorder struct {
	off    bool
	queues bool
	sums   bool // the recorded operations sum the gradients over the processes
	seen   map[shape]int
	shape  shape // of the recorded batches
	graph  *nn.Graph

	images, targets torch.Tensor // what a repetition reads
	skip            torch.Tensor // if queues is set, 1 as soon as a loss or gradient was not finite
}

type shape struct{ n, c, h, w int }

func shapeOf(b *feed.Batch) shape { return shape{b.N, b.C, b.H, b.W} }

// repeats returns whether the gradients of batches like b are recorded.
func (rec *recorder) repeats(b *feed.Batch) bool { return rec.graph != nil && shapeOf(b) == rec.shape }

// recordAfter is the number of batches of a shape that are computed before one is recorded:
// CUDA's libraries choose their algorithms and take their memory at the first.
const recordAfter = 2

// recorded returns whether the gradients of a batch are recorded, and records them if it is
// time. If that fails, as it does in a program that was built without CUDA's headers, the
// run goes on without, and Recordings says why.
func (r *run) recorded(b *feed.Batch) bool {
	rec := &r.recorder
	if rec.off || rec.graph != nil {
		return rec.repeats(b)
	}
	if rec.seen == nil {
		rec.seen = map[shape]int{}
	}
	if rec.seen[shapeOf(b)]++; rec.seen[shapeOf(b)] <= recordAfter {
		return false
	}
	if err := r.record(b); err != nil {
		rec.close()
		rec.off = true
		r.note(func(n *Recordings) { n.Err = err })
		return false
	}
	return true
}

var (
	opStack    = nn.NewOp("stack")
	opIsFinite = nn.NewOp("isfinite")
	opNot      = nn.NewOp("logical_not")
	opMaximum  = nn.NewOp("maximum")
)

// record records the gradients of batches of b's shape.
func (r *run) record(b *feed.Batch) (err error) {
	rec := &r.recorder
	rec.shape, rec.queues = shapeOf(b), r.queues()
	rec.sums = r.reducer != nil && r.cfg.MicroBatches == 1 // in buckets, while the backward pass goes on
	err = nn.Try(func() {
		rec.images, rec.targets = r.uploaded(b)
		rec.skip = nn.Zeros(r.device, nn.Float)
	})
	if err != nil {
		return err
	}
	rec.graph, err = nn.Record(r.device, func() []torch.Tensor {
		defer r.aside()()
		loss := r.lossOf(rec.images, rec.targets)
		backward := loss
		if !rec.queues { // otherwise one batch is a step: the factor of its loss and the divisor of its gradients would cancel
			backward = r.scaled(loss, rec.shape.n)
		}
		if err := r.recordBackward(backward); err != nil {
			panic(err)
		}
		numbers := nn.Detach(loss)
		if rec.queues {
			numbers = r.checked(numbers)
		}
		return append([]torch.Tensor{numbers}, gradientsOf(r.params)...)
	})
	return err
}

// recordBackward computes the gradients, and their sums over the processes if the recorder
// does that.
func (r *run) recordBackward(loss torch.Tensor) error {
	if !r.recorder.sums {
		return nn.Backward(loss)
	}
	return errors.Join(r.reducer.Prepare(), nn.Backward(loss), r.reducer.FinishRecorded())
}

// aside takes the gradients away from the parameters and returns a function that gives them
// back.
func (r *run) aside() (back func()) {
	grads := gradientsOf(r.params)
	drop := func() {
		if err := nn.DropGrad(r.params); err != nil {
			panic(err)
		}
	}
	drop()
	return func() {
		drop()
		giveGradients(r.params, grads)
	}
}

// gradientsOf returns the gradients of params, the zero torch.Tensor where there is none.
func gradientsOf(params []nn.Named) []torch.Tensor {
	grads := make([]torch.Tensor, len(params))
	for i, p := range params {
		grads[i], _ = nn.Grad(p.Tensor)
	}
	return grads
}

func giveGradients(params []nn.Named, grads []torch.Tensor) {
	for i, g := range grads {
		if g.T != nil {
			nn.SetGrad(params[i].Tensor, g)
		}
	}
}

// checked clips the gradients and returns the loss and the norm before that. It sets skip if
// one of them is not finite, and leaves it where it is set.
func (r *run) checked(loss torch.Tensor) (numbers torch.Tensor) {
	nn.NoGrad(func() {
		norm := nn.To(nn.ClipGrad(r.params, r.cfg.Clip), r.device, nn.DTypeOf(loss))
		numbers = opStack.Call([]torch.Tensor{loss, norm})
		bad := nn.To(opNot.Call(opIsFinite.Call(nn.Add(loss, norm))), r.device, nn.Float)
		nn.CopyInto(r.recorder.skip, opMaximum.Call(r.recorder.skip, bad))
	})
	return numbers
}

// repeat asks the device for the gradients of a batch, and for its loss or, where the
// recorder queues, what checked returns. It is called in a scope, and panics as package nn
// does.
func (r *run) repeat(b *feed.Batch) (numbers torch.Tensor, grads []torch.Tensor) {
	rec := &r.recorder
	images, targets := r.uploaded(b)
	nn.CopyInto(rec.images, images)
	nn.CopyInto(rec.targets, targets)
	results, err := rec.graph.Replay()
	if err != nil {
		panic(err)
	}
	return results[0], results[1:]
}

// repeatGradients adds the gradients of a recorded batch to those gathered and returns its
// loss. It is called in a scope, and panics as package nn does.
func (r *run) repeatGradients(b *feed.Batch, completes bool) (loss float64) {
	value, grads := r.repeat(b)
	err := nn.AddGrad(r.params, grads)
	if err == nil && completes && !r.recorder.sums {
		err = r.sumGradients()
	}
	if err != nil {
		panic(err)
	}
	r.note(func(n *Recordings) { n.Steps++ })
	return item(value)
}

// An openBatch is one that the device was given with its step, and whose loss was not read.
type openBatch struct {
	batch   int         // in the epoch
	step    int         // number of steps before it in the whole run
	films   *feed.Batch // for messages
	info    BatchInfo   // but for the loss and the norm
	numbers *nn.Reading[float64]
}

// queue gives the device a recorded batch and its step, which it leaves out if the loss or
// the gradient is not finite. The batch stays open.
func (r *run) queue(b *feed.Batch, info BatchInfo) error {
	o := openBatch{r.at.Batch, r.Learner.at.Step, &feed.Batch{N: b.N, Indices: slices.Clone(b.Indices)}, info, nil}
	var numbers torch.Tensor
	err := r.inScope(b, func() {
		var grads []torch.Tensor
		numbers, grads = r.repeat(b)
		giveGradients(r.params, grads)
		nn.Keep(numbers)
	})
	if err == nil {
		err = r.stepUnless(r.recorder.skip, float64(b.N))
	}
	if err == nil {
		err = nn.DropGrad(r.params)
	}
	if err == nil {
		o.numbers, err = nn.BeginRead[float64](numbers)
	}
	if err == nil {
		r.open = append(r.open, o)
	}
	return err
}

// settle ends the open batches in order, but for the newest ones.
func (r *run) settle(ctx context.Context, source feed.Source, newest int) error {
	for len(r.open) > newest {
		o := r.open[0]
		r.open = r.open[1:]
		if err := r.conclude(&o, source); err != nil {
			return r.fail(ctx, "", o.batch, err)
		}
	}
	return nil
}

// conclude waits for the loss of an open batch and ends the batch.
func (r *run) conclude(o *openBatch, source feed.Source) error {
	numbers, err := o.numbers.Values()
	if err != nil {
		return err
	}
	loss, norm := numbers[0], numbers[1]
	switch {
	case !finite(loss):
		err = &badNumber{"the loss", loss}
	case !finite(norm):
		err = &badNumber{"the norm of the gradient", norm}
	}
	if err != nil {
		r.Learner.at.Step = o.step // the device left out this step and those after it
		return badBatch(err, o.step, &o.info, source, o.films)
	}
	r.note(func(n *Recordings) { n.Steps++ })
	o.info.Loss = loss
	if r.cfg.Clip > 0 {
		o.info.Norm = norm
	}
	return r.batchEnd(o.info)
}

// forget frees the open batches after an error.
func (r *run) forget() {
	for _, o := range r.open {
		_, _ = o.numbers.Values() // the run has ended with another error
	}
	r.open = nil
}

// ahead returns whether the device may be given the next batch before the loss of the open
// one is read: not if something happens between the two.
func (r *run) ahead() bool {
	if len(r.open) == 0 || r.end != nil || r.at.Batch == r.at.Batches {
		return false
	}
	return !slices.ContainsFunc(r.parts.Hooks, func(h Hook) bool { return h.Pause != nil && (h.PauseDue == nil || h.PauseDue()) })
}

// close frees what was recorded.
func (rec *recorder) close() {
	if rec.graph != nil {
		rec.graph.Close()
		rec.graph = nil
	}
}

// predictions records predictions as a recorder does gradients, for several shapes.
type predictions struct {
	mutex sync.Mutex
	seen  map[prediction]int
	made  map[prediction]*recordedPrediction
}

type prediction struct {
	shape
	flip Flip
}

// mostPredictions bounds the number of recordings, each of which keeps its own memory.
const mostPredictions = 4

type recordedPrediction struct {
	graph  *nn.Graph
	images torch.Tensor
}

// repeat asks the device for the probabilities of a batch by recorded operations; it returns
// nil if they are not recorded.
func (p *predictions) repeat(l *Learner, b *feed.Batch, flip Flip) (prob *nn.Reading[float32], err error) {
	if m, isStatic := l.model.(Static); !isStatic || !m.Static() || !recordsOn(l.device) {
		return nil, nil
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	key := prediction{shapeOf(b), flip}
	rec := p.made[key]
	if rec == nil {
		if p.seen == nil {
			p.seen, p.made = map[prediction]int{}, map[prediction]*recordedPrediction{}
		}
		if p.seen[key]++; p.seen[key] != recordAfter+1 || len(p.made) == mostPredictions {
			return nil, nil
		}
		if rec, err = l.recordPrediction(b, flip); err != nil {
			l.recordings.Err = err
			return nil, nil // and it is not tried again
		}
		p.made[key] = rec
	}
	err = l.inScope(b, func() {
		nn.CopyInto(rec.images, l.input.upload(b))
		results, err := rec.graph.Replay()
		if err != nil {
			panic(err)
		}
		if prob, err = nn.BeginRead[float32](results[0]); err != nil {
			panic(err)
		}
	})
	if err == nil {
		l.recordings.Predictions++
	}
	return prob, err
}

// recordPrediction records the predictions of batches of b's shape, on a goroutine of its
// own, so that no scope of the caller's frees the tensors.
func (l *Learner) recordPrediction(b *feed.Batch, flip Flip) (*recordedPrediction, error) {
	rec := &recordedPrediction{}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		done <- nn.Try(func() {
			rec.images = l.input.upload(b)
			nn.Scope(func() { l.average(rec.images, flip) })
			var err error
			rec.graph, err = nn.Record(l.device, func() []torch.Tensor { return []torch.Tensor{l.average(rec.images, flip)} })
			if err != nil {
				panic(err)
			}
		})
	}()
	err := <-done
	if err == nil {
		runtime.AddCleanup(rec, func(g *nn.Graph) { g.Close() }, rec.graph)
	}
	return rec, err
}
