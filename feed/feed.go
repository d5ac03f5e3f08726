// Package feed brings images and masks to training and prediction, as batches of
// numbers. It is pure Go.
//
// [Images] are a set of images of one size: any number of channels, 8 or 16 bits a
// value, masks as classes; held as bytes as far as a budget of memory allows, and
// read again where it does not. A [Loader] makes batches of them: in order or
// shuffled, as they are or transformed at random, on as many goroutines as there
// are cores. What a batch holds is a function of the seed, the epoch and the
// batch's number alone, so that a run that is stopped can go on at any batch and a
// run on another number of cores is the same run.
//
// Images are row-major, channel after channel; values reach the network's input as
// float32 in [0, 1], where 1 is the highest value of the image's bits. Classes are
// counted from 0, which is the background.
package feed

import (
	"fmt"
	"iter"
)

// A Batch is some images and their classes.
type Batch struct {
	N, C, H, W int
	Images     []float32 // (N, C, H, W), values in [0, 1]
	Targets    []uint8   // (N, H, W), classes; nil where they are not known
	Indices    []int     // of the images in the source, for messages and tables; may be nil
}

// Check returns an error if the slices do not have the sizes that the batch claims.
// Targets may be nil unless they are wanted.
func (b *Batch) Check(targets bool) error {
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

// A Source yields the batches of an epoch. [*Loader] is one.
type Source interface {
	// Len returns the number of images.
	Len() int
	// Batches returns the number of batches in an epoch.
	Batches() int
	// Name returns the name of an image, for messages and tables.
	Name(image int) string
	// Epoch yields the batches from, from+1 and so on of an epoch, which is counted
	// from 0 over the whole run; those before cost nothing. A batch is valid until
	// the next one is asked for. An error is the last that is yielded, with a nil
	// batch.
	Epoch(epoch, from int) iter.Seq2[*Batch, error]
}
