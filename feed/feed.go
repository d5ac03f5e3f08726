// Package feed reads images and masks and makes batches of numbers of them, for
// training and prediction. It is pure Go.
//
// [Images] is a set of images of one size, with any number of channels, 8 or 16
// bits per value, and masks of classes. Images are kept in memory as bytes up to a
// limit; the others are read again each time. A [Loader] makes batches of them, in
// order or shuffled, unchanged or transformed at random, on one goroutine per
// core. A batch depends only on the seed, the epoch and the number of the batch.
// So a stopped run can continue at any batch, and the number of cores does not
// change a run. A [Planner] can also say what its batches are without making their
// pixels, for a device that holds the images.
//
// Images are row-major, channel after channel. A batch has their values as float32
// in [0, 1], where 1 is the highest value of 8 or 16 bits. Classes are counted
// from 0, which is the background.
package feed

import (
	"fmt"
	"iter"

	"github.com/hcunet/hcunet/augment"
)

// A Batch holds several images and their targets. A planned batch, which a [Planner]
// yields, has Plans in their place.
type Batch struct {
	N, C, H, W int
	Images     []float32 // (N, C, H, W), values in [0, 1]
	Targets    []uint8   // (N, H, W), classes; nil if they are not known
	Indices    []int     // indices of the images in the source, for messages and tables; may be nil

	// Plans are the transforms, one for each of Indices, that would make Images and
	// Targets, which are nil. Plans is nil in a batch that is not planned.
	Plans []augment.Plan
}

// Check returns an error if the lengths of the slices do not match N, C, H and W.
// Targets may be nil if targets is false. A planned batch must have an index and a plan
// for each image, and no pixels.
func (b *Batch) Check(targets bool) error {
	if b.Plans != nil {
		return b.checkPlans()
	}
	if b.N < 1 || b.C < 1 || b.H < 1 || b.W < 1 || len(b.Images) != b.N*b.C*b.H*b.W {
		return fmt.Errorf("feed: batch of %dx%dx%dx%d has %d image values", b.N, b.C, b.H, b.W, len(b.Images))
	}
	if (targets || b.Targets != nil) && len(b.Targets) != b.N*b.H*b.W {
		return fmt.Errorf("feed: batch of %d images of %dx%d has %d target values", b.N, b.H, b.W, len(b.Targets))
	}
	if b.Indices != nil && len(b.Indices) != b.N {
		return fmt.Errorf("feed: batch of %d images has %d indices", b.N, len(b.Indices))
	}
	return nil
}

func (b *Batch) checkPlans() error {
	if b.N < 1 || b.C < 1 || len(b.Plans) != b.N || len(b.Indices) != b.N || b.Images != nil || b.Targets != nil {
		return fmt.Errorf("feed: planned batch of %d images of %d channels has %d plans, %d indices, %d image values and %d target values; wanted a plan and an index for each image and no values",
			b.N, b.C, len(b.Plans), len(b.Indices), len(b.Images), len(b.Targets))
	}
	for i := range b.Plans {
		if p := &b.Plans[i]; b.H < 1 || b.W < 1 || p.H != b.H || p.W != b.W {
			return fmt.Errorf("feed: planned batch of images of %dx%d has a plan for one of %dx%d", b.H, b.W, p.H, p.W)
		}
	}
	return nil
}

// A Source yields the batches of an epoch. [*Loader] is one.
type Source interface {
	// Len returns the number of images.
	Len() int
	// Batches returns the number of batches in an epoch.
	Batches() int
	// Name returns the name of an image, for messages and tables.
	Name(image int) string
	// Epoch yields the batches from, from+1 and so on of an epoch. Epochs are
	// counted from 0 over the whole run. Batches before from are not computed. A
	// batch is valid until the next iteration. After an error, which comes with a
	// nil batch, nothing more is yielded.
	Epoch(epoch, from int) iter.Seq2[*Batch, error]
}
