package train

import (
	"errors"
	"runtime"
	"sync"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Static is a model that does the same operations for all images of one shape, without
// random numbers and without reading a value back from the device. On a GPU the gradients
// of its batches are recorded once and then repeated, see [nn.Graph]. *unet.Net is Static.
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

// recordable returns whether the step of a batch, but for the rates, is the same operations
// for all batches of one shape: not if gradients are added to those of earlier batches, if a
// loss of the user's may do anything, if processes exchange gradients, or if float16's scale
// varies. The optimizer must be able to leave out a step whose gradients are not finite.
func (r *run) recordable() bool {
	m, isStatic := r.model.(Static)
	o, isSkipper := r.optimizer.(nn.Skipper)
	return isStatic && m.Static() && isSkipper && o.CanSkip() && r.device.CUDA() && r.parts.Loss == nil && r.parts.Group == nil &&
		r.cfg.Accumulation == Mean && r.cfg.MicroBatches == 1 && r.cfg.Precision != Float16
}

// A recorder counts the batches of each shape and records the gradients of one shape.
type recorder struct {
	off   bool
	seen  map[shape]int
	shape shape // of the recorded batches
	graph *nn.Graph

	images, targets torch.Tensor   // what a repetition reads
	grads           []torch.Tensor // what it computes: the gradients of the parameters, clipped; the zero torch.Tensor where there is none
	numbers         torch.Tensor   // and the loss and the norm of the gradient before clipping
	skip            torch.Tensor   // 1 if one of these is not finite
}

type shape struct{ n, c, h, w int }

func shapeOf(b *feed.Batch) shape { return shape{b.N, b.C, b.H, b.W} }

// recordAfter is the number of batches of a shape that are computed before one is recorded:
// CUDA's libraries choose their algorithms and take their memory at the first.
const recordAfter = 2

// recorded returns whether the gradients of a batch are recorded, and records them if it is
// time. If that fails, as it does in a program that was built without CUDA's headers, the
// run goes on without, and Recordings says why.
func (r *run) recorded(b *feed.Batch) bool {
	rec := &r.recorder
	if rec.off || rec.graph != nil {
		return rec.graph != nil && shapeOf(b) == rec.shape
	}
	if rec.seen == nil {
		rec.seen = map[shape]int{}
	}
	if rec.seen[shapeOf(b)]++; rec.seen[shapeOf(b)] <= recordAfter {
		return false
	}
	if err := r.record(b); err != nil {
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
)

// record records the gradients of batches of b's shape. One batch is a step, so that the
// factor of its loss and the divisor of its gradients would cancel.
func (r *run) record(b *feed.Batch) error {
	rec := recorder{seen: r.recorder.seen, shape: shapeOf(b)}
	err := nn.Try(func() { rec.images, rec.targets = r.uploaded(b) })
	if err != nil {
		return err
	}
	rec.graph, err = nn.Record(r.device, func() {
		nn.Scope(func() {
			loss := r.lossOf(rec.images, rec.targets)
			if err := nn.Backward(loss); err != nil {
				panic(err)
			}
			nn.NoGrad(func() {
				loss = nn.Detach(loss)
				norm := nn.To(nn.ClipGrad(r.params, r.cfg.Clip), r.device, r.dtype)
				rec.numbers = opStack.Call([]torch.Tensor{loss, norm})
				rec.skip = nn.To(opNot.Call(opIsFinite.Call(nn.Add(loss, norm))), r.device, nn.Float)
			})
			nn.Keep(rec.numbers, rec.skip)
		})
	})
	if err == nil {
		err = nn.Try(func() {
			for _, p := range r.params {
				g, _ := nn.Grad(p.Tensor)
				rec.grads = append(rec.grads, g)
			}
		})
	}
	err = errors.Join(err, nn.DropGrad(r.params))
	if err != nil {
		rec.close()
		return err
	}
	r.recorder = rec
	return nil
}

// repeat makes the step of a batch by the recorded operations and returns its loss. The
// step is asked for before its loss is known, and left out on the device if it is not finite.
func (r *run) repeat(b *feed.Batch) (loss float64, err error) {
	rec := &r.recorder
	r.accumulator.beginBatch(&r.at.Gathered, b.N, true)
	err = r.inScope(b, func() {
		images, targets := r.uploaded(b)
		nn.CopyInto(rec.images, images)
		nn.CopyInto(rec.targets, targets)
		if err := rec.graph.Replay(); err != nil {
			panic(err)
		}
		for i, g := range rec.grads {
			if g.T != nil {
				nn.SetGrad(r.params[i].Tensor, g)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	r.at.Gathered = gathered{}
	if err := r.stepUnless(rec.skip, float64(b.N)); err != nil {
		return 0, err
	}
	if err := nn.DropGrad(r.params); err != nil {
		return 0, err
	}
	numbers, err := nn.Slice[float64](rec.numbers)
	if err != nil {
		return 0, err
	}
	loss = numbers[0]
	if r.cfg.Clip > 0 {
		r.stepper.norm = numbers[1]
	}
	switch {
	case !finite(loss):
		err = &badNumber{"the loss", loss}
	case !finite(numbers[1]):
		err = &badNumber{"the norm of the gradient", numbers[1]}
	}
	if err != nil {
		r.Learner.at.Step-- // the device left it out
		return loss, err
	}
	r.note(func(n *Recordings) { n.Steps++ })
	return loss, nil
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
	graph       *nn.Graph
	images, out torch.Tensor
}

// repeat returns the probabilities of a batch by recorded operations; ok is false if they
// are not recorded.
func (p *predictions) repeat(l *Learner, b *feed.Batch, flip Flip) (prob []float32, ok bool, err error) {
	if m, isStatic := l.model.(Static); !isStatic || !m.Static() || !l.device.CUDA() {
		return nil, false, nil
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
			return nil, false, nil
		}
		if rec, err = l.recordPrediction(b, flip); err != nil {
			l.recordings.Err = err
			return nil, false, nil // and it is not tried again
		}
		p.made[key] = rec
	}
	err = l.inScope(b, func() {
		nn.CopyInto(rec.images, l.input.upload(b))
		if err := rec.graph.Replay(); err != nil {
			panic(err)
		}
		prob = slice(rec.out)
	})
	if err == nil {
		l.recordings.Predictions++
	}
	return prob, err == nil, err
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
			rec.graph, err = nn.Record(l.device, func() {
				rec.out = nn.Result(func() torch.Tensor { return l.average(rec.images, flip) })
			})
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
