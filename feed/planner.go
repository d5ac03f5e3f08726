package feed

import (
	"iter"

	"github.com/hcunet/hcunet/augment"
)

// A Planner is a Source that can say what its batches are before their pixels are made.
// A device that holds the images can then make the batches itself. [*Loader] is one.
type Planner interface {
	Source

	// Images returns the set of images. Its indices are those of the batches.
	Images() *Images

	// Plans yields the batches that Epoch yields, in the same order, as planned
	// batches. No image is read. A batch is valid until the next iteration. After an
	// error, which comes with a nil batch, nothing more is yielded.
	Plans(epoch, from int) iter.Seq2[*Batch, error]
}

var _ Planner = (*Loader)(nil)

// Images returns the images of the loader.
func (l *Loader) Images() *Images { return l.images }

// Plans yields the batches of Epoch as planned batches: applied to the images that
// Indices names, Plans give the pixels that Epoch yields.
func (l *Loader) Plans(epoch, from int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		if err := checkPosition(epoch, from); err != nil {
			yield(nil, err)
			return
		}
		order := l.order(epoch)
		var plans []augment.Plan
		for n := from; n < l.Batches(); n++ {
			indices := l.indices(order, n)
			plans = plans[:0]
			for _, i := range indices {
				plan, err := l.transform(epoch, i)
				if err != nil {
					yield(nil, err)
					return
				}
				plans = append(plans, plan)
			}
			b := &Batch{N: len(indices), C: l.images.Channels, H: l.h, W: l.w, Indices: indices, Plans: plans}
			if !yield(b, nil) {
				return
			}
		}
	}
}
