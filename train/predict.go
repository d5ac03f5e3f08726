package train

import (
	"context"
	"fmt"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Foreground is the class of a pixel that belongs to a mask; 0 is background. For
// the notebook's data it is pneumothorax.
const Foreground = 1

// A Prediction is the result for one image of a source.
type Prediction struct {
	Index   int       // of the image in the source's order
	Prob    []float32 // probability of the foreground, row-major, in [0, 1]; the receiver's own
	Targets []uint8   // classes; nil if they are not known, valid during the call
}

// Predict computes, for every image of a source in its order, the probability of
// the foreground, averaged over the image and its mirror image (the notebook's
// flip averaging) unless noFlip, and passes it to each. An error of each ends the
// work.
func (t *Trainer) Predict(ctx context.Context, source feed.Source, noFlip bool, each func(Prediction) error) (err error) {
	nn.NoGrad(func() { err = t.predict(ctx, source, noFlip, each) })
	return err
}

func (t *Trainer) predict(ctx context.Context, source feed.Source, noFlip bool, each func(Prediction) error) error {
	index, batch := 0, 0
	for b, err := range source.Epoch(0, 0) {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = b.Check(b.Targets != nil)
		}
		if err != nil {
			return fmt.Errorf("train: predicting batch %d, images from %d on: %w", batch, index, err)
		}
		var prob []float32
		err = inScope(func() {
			p := t.probability(b, false)
			if !noFlip {
				p = nn.MulScalar(nn.Add(p, nn.FlipLR(t.probability(b, true))), 0.5)
			}
			prob = slice(p)
		})
		if err != nil {
			return fmt.Errorf("train: predicting batch %d, images from %d on: %w", batch, index, err)
		}
		area := b.H * b.W
		for i := range b.N {
			p := Prediction{Index: index, Prob: prob[i*area : (i+1)*area : (i+1)*area]}
			if b.Targets != nil {
				p.Targets = b.Targets[i*area : (i+1)*area]
			}
			if err := each(p); err != nil {
				return err
			}
			index++
		}
		batch++
	}
	return nil
}

// probability returns the foreground's probability (N, H, W) for a batch, or for
// its mirror images.
func (t *Trainer) probability(b *feed.Batch, flip bool) torch.Tensor {
	x := t.input(b)
	if flip {
		x = nn.FlipLR(x)
	}
	return foreground(t.scores(nn.Eval, x))
}

// foreground returns the probability of the foreground (N, H, W) from class scores.
func foreground(scores torch.Tensor) torch.Tensor {
	return nn.Select(nn.Softmax(scores, 1), 1, Foreground)
}

// inScope runs f in a scope and returns libtorch's complaint.
func inScope(f func()) error {
	return nn.Try(func() { nn.Scope(f) })
}

// slice returns the elements of t, for use inside nn.Try.
func slice(t torch.Tensor) []float32 {
	v, err := nn.Slice[float32](t)
	if err != nil {
		panic(err)
	}
	return v
}

// item returns the value of a tensor of one element, for use inside nn.Try.
func item(t torch.Tensor) float64 {
	v, err := nn.Item(t)
	if err != nil {
		panic(err)
	}
	return v
}
