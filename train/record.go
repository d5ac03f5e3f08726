package train

import (
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

// recordable returns whether the gradients of a batch are the same operations for all
// batches of one shape: not if gradients are added to those of earlier batches, if a loss of
// the user's may do anything, if processes exchange gradients, or if float16's scale varies.
func (l *Learner) recordable() bool {
	m, ok := l.model.(Static)
	return ok && m.Static() && l.device.CUDA() && l.parts.Loss == nil && l.parts.Group == nil &&
		l.cfg.Accumulation == Mean && l.cfg.MicroBatches == 1 && l.cfg.Precision != Float16
}

// A recorder counts the batches of each shape and records the gradients of one shape.
type recorder struct {
	off   bool
	seen  map[shape]int
	shape shape // of the recorded batches
	graph *nn.Graph

	images, targets torch.Tensor   // what a repetition reads
	loss            torch.Tensor   // what it computes
	grads           []torch.Tensor // of l.params, the zero torch.Tensor where there is none
}

type shape struct{ n, c, h, w int }

func shapeOf(b *feed.Batch) shape { return shape{b.N, b.C, b.H, b.W} }

// recordAfter is the number of batches of a shape that are computed before one is recorded:
// CUDA's libraries choose their algorithms and take their memory at the first.
const recordAfter = 2

// recorded returns whether the gradients of a batch are recorded, and records them if it is
// time. If that fails, as it does in a program that was built without CUDA's headers, the
// run goes on without.
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
		return false
	}
	return true
}

// record records the gradients of batches of b's shape.
func (r *run) record(b *feed.Batch) error {
	rec := recorder{seen: r.recorder.seen, shape: shapeOf(b)}
	err := nn.Try(func() { rec.images, rec.targets = r.input.upload(b) })
	if err != nil {
		return err
	}
	rec.graph, err = nn.Record(r.device, func() {
		nn.Scope(func() {
			rec.loss = r.lossOf(rec.images, rec.targets)
			if err := r.backward(r.scaled(rec.loss, b.N), true); err != nil {
				panic(err)
			}
			nn.Keep(rec.loss)
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
	if err != nil {
		if rec.graph != nil {
			rec.graph.Close()
		}
		return err
	}
	r.recorder = rec
	return nn.DropGrad(r.params)
}

// repeat computes the gradients of a batch by the recorded operations and returns its loss.
func (rec *recorder) repeat(r *run, b *feed.Batch) float64 {
	images, targets := r.input.upload(b)
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
	return item(rec.loss)
}

// close frees what was recorded.
func (rec *recorder) close() {
	if rec.graph != nil {
		rec.graph.Close()
		rec.graph = nil
	}
}
