package train

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// ErrElsewhere is the error of a run that ends because another of its processes
// was told to stop.
var ErrElsewhere = errors.New("train: another process was told to stop")

// checkGroup returns an error for a configuration that several processes cannot
// train together.
func (l *Learner) checkGroup() error {
	if l.parts.Group != nil && l.cfg.Accumulation == Notebook {
		return errors.New("train: the accumulation \"notebook\" clips the gradients of one process before they are complete; take \"mean\" for several")
	}
	return nil
}

// first returns whether this is the only or the first process, which writes
// files and shows progress.
func (l *Learner) first() bool { return l.parts.Group == nil || l.parts.Group.First() }

// align copies the model of the first process to every process.
func (l *Learner) align(buffersOnly bool) error {
	if l.parts.Group == nil {
		return nil
	}
	var ts []torch.Tensor
	for _, n := range nn.State(l.model) {
		if n.Buffer || !buffersOnly {
			ts = append(ts, nn.Detach(n.Tensor)) // the same memory, without gradients, so that it may be written to
		}
	}
	return l.parts.Group.Broadcast(0, ts...)
}

// reducer returns the Reducer that sums the gradients of the trained parameters
// over the processes, nil for one process.
func (l *Learner) reducer() (*dist.Reducer, error) {
	if l.parts.Group == nil {
		return nil, nil
	}
	var ts []torch.Tensor
	for _, p := range l.params {
		if nn.RequiresGrad(p.Tensor) {
			ts = append(ts, p.Tensor)
		}
	}
	return l.parts.Group.NewReducer(ts)
}

// images returns the number of images of a batch in all processes together. If
// any process must stop, all of them return an error at the same batch.
func (l *Learner) images(ctx context.Context, own int) (int, error) {
	cause := context.Cause(ctx)
	if l.parts.Group == nil {
		return own, cause
	}
	v := []float64{float64(own), 0}
	if cause != nil {
		v[1] = 1
	}
	if err := l.parts.Group.SumFloats(v); err != nil {
		return 0, err
	}
	if v[1] > 0 && cause == nil {
		cause = ErrElsewhere
	}
	return int(v[0]), cause
}

// ended returns whether the run or phase ends after this batch. If one of several
// processes must stop, all end together as soon as no gradients are gathered.
func (r *run) ended() (bool, error) {
	if r.reducer == nil {
		return r.end != nil, nil
	}
	if r.at.Gathered.Batches > 0 {
		return false, nil
	}
	v := []float64{0, 0}
	switch {
	case errors.Is(r.end, Stop):
		v[0] = 1
	case r.end != nil:
		v[1] = 1
	}
	if err := r.parts.Group.SumFloats(v); err != nil {
		return false, err
	}
	switch {
	case v[0] > 0:
		r.elsewhere = !errors.Is(r.end, Stop)
		r.end = Stop
	case v[1] > 0:
		r.end = EndPhase
	}
	return r.end != nil, nil
}

// meanLoss returns the mean loss over the images of all processes.
func (l *Learner) meanLoss(own float64, n, images int) (float64, error) {
	if l.parts.Group == nil {
		return own, nil
	}
	v := []float64{own * float64(n)}
	err := l.parts.Group.SumFloats(v)
	return v[0] / float64(images), err
}

// backward computes the gradients of a loss. If they complete a step, they are
// summed over the processes.
func (r *run) backward(loss torch.Tensor, completes bool) error {
	if r.reducer == nil || !completes {
		return nn.Backward(loss)
	}
	return errors.Join(r.reducer.Prepare(), nn.Backward(loss), r.reducer.Finish())
}

// sumGradients sums the gradients over the processes, after the backward pass.
func (r *run) sumGradients() error {
	if r.reducer == nil {
		return nil
	}
	return errors.Join(r.reducer.Prepare(), r.reducer.Finish())
}

// scored holds the loss and the probabilities of a batch.
type scored struct {
	loss  float64 // NaN if it was not computed
	prob  []float32
	later *nn.Reading[float32] // the probabilities, if they are not here yet
}

// wait waits for the probabilities.
func (s *scored) wait() (err error) {
	if s.later != nil {
		s.prob, err = s.later.Values()
		s.later = nil
	}
	return err
}

func (s scored) encode() []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+4*len(s.prob)), math.Float64bits(s.loss))
	for _, p := range s.prob {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(p))
	}
	return b
}

func decodeScored(b []byte) (s scored, err error) {
	if len(b) < 8 || len(b)%4 != 0 {
		return s, fmt.Errorf("another process has sent %d bytes for a batch", len(b))
	}
	s.loss = math.Float64frombits(binary.LittleEndian.Uint64(b))
	for b = b[8:]; len(b) > 0; b = b[4:] {
		s.prob = append(s.prob, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return s, nil
}

// kept returns what is used of a batch after the source has gone on to the next one.
func kept(b *feed.Batch) *feed.Batch {
	k := *b
	k.Images, k.Targets, k.Indices = nil, slices.Clone(b.Targets), slices.Clone(b.Indices)
	return &k
}

// A computer computes the loss and the probabilities of a batch. number is the number of the
// batch, first the number of its first image.
type computer func(b *feed.Batch, number, first int) (scored, error)

// scoreBatches calls use for every batch of a source, in order, with the result of compute.
// Several processes take turns to compute, and each calls use for all batches.
func (l *Learner) scoreBatches(ctx context.Context, source feed.Source, epoch int, compute computer, use func(*feed.Batch, scored) error) error {
	if g := l.parts.Group; g != nil && g.Size() > 1 {
		return l.scoreTogether(ctx, source, epoch, compute, use)
	}
	var open func() error // uses the result of the batch before, if that was late
	settle := func() error {
		f := open
		if open = nil; f == nil {
			return nil
		}
		return f()
	}
	number, first := 0, 0
	for b, err := range source.Epoch(epoch, 0) {
		if err == nil {
			_, err = l.images(ctx, 0)
		}
		var s scored
		if err == nil {
			s, err = compute(b, number, first)
		}
		if late := settle(); late != nil {
			return errors.Join(late, s.wait())
		}
		switch {
		case err != nil:
			return err
		case s.later != nil: // the device is given the next batch before this one is used
			b := kept(b)
			open = func() error {
				if err := s.wait(); err != nil {
					return err
				}
				return use(b, s)
			}
		default:
			if err := use(b, s); err != nil {
				return err
			}
		}
		number++
		first += b.N
	}
	return settle()
}

// scoreTogether is scoreBatches for several processes.
func (l *Learner) scoreTogether(ctx context.Context, source feed.Source, epoch int, compute computer, use func(*feed.Batch, scored) error) error {
	size, rank := l.parts.Group.Size(), l.parts.Group.Rank()
	var round []*feed.Batch
	var own []byte
	number, first := 0, 0
	share := func() error {
		all, err := l.parts.Group.GatherBytes(own)
		if err != nil {
			return err
		}
		for i, b := range round {
			s, err := decodeScored(all[i])
			if err == nil {
				err = use(b, s)
			}
			if err != nil {
				return err
			}
		}
		round, own = round[:0], nil
		return nil
	}
	for b, err := range source.Epoch(epoch, 0) {
		if err != nil {
			return err
		}
		if len(round) == 0 { // at the beginning of a round all processes agree to continue
			if _, err := l.images(ctx, 0); err != nil {
				return err
			}
		}
		if len(round) == rank {
			s, err := compute(b, number, first)
			if err == nil {
				err = s.wait()
			}
			if err != nil {
				return err
			}
			own = s.encode()
		}
		number++
		first += b.N
		if round = append(round, kept(b)); len(round) == size {
			if err := share(); err != nil {
				return err
			}
		}
	}
	if len(round) > 0 {
		return share()
	}
	return nil
}
