package train

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/feed"
	"golang.org/x/sync/errgroup"
)

// LoaderOptions say how a Loader makes batches.
type LoaderOptions struct {
	Batch int // images a batch; 0 means 1
	Size  int // width and height of what it yields; 0 means the images' own

	// Augment, if not nil, shuffles the images anew each epoch and draws
	// transforms for each; nil yields them as they are, in order.
	Augment *augment.Config
	Seed    uint64 // of order and transforms: the same seed gives the same epochs

	// DropLast leaves out a last batch that is not full, as fastai does in
	// training. Without it a shuffled last batch of a single image is left out all
	// the same, as it says nothing about a batch's statistics.
	DropLast bool
}

// A Loader is a [feed.Source] over images in memory: it transforms them on other
// goroutines, two batches ahead. Its images have one channel, values in [0, 1].
type Loader struct {
	images *Images
	opt    LoaderOptions
}

// NewLoader returns a loader; it fails on options out of range.
func NewLoader(images *Images, opt LoaderOptions) (*Loader, error) {
	if opt.Batch == 0 {
		opt.Batch = 1
	}
	if opt.Batch < 0 || opt.Size < 0 {
		return nil, fmt.Errorf("train: batches of %d images of size %d, wanted positive numbers", opt.Batch, opt.Size)
	}
	if opt.Augment != nil {
		if err := opt.Augment.Check(); err != nil {
			return nil, err
		}
	}
	return &Loader{images, opt}, nil
}

// Batches returns the number of batches in an epoch.
func (l *Loader) Batches() int {
	n, rest := l.images.Len()/l.opt.Batch, l.images.Len()%l.opt.Batch
	if rest == 0 || l.opt.DropLast || l.opt.Augment != nil && rest == 1 && n > 0 {
		return n
	}
	return n + 1
}

// prefetch is how many batches are made ahead.
const prefetch = 2

// Len returns the number of images.
func (l *Loader) Len() int { return l.images.Len() }

// Name returns the name of an image.
func (l *Loader) Name(image int) string { return l.images.Names[image] }

// Epoch yields the batches of an epoch, the first one being from. A batch is the receiver's own.
func (l *Loader) Epoch(epoch, from int) iter.Seq2[*feed.Batch, error] {
	return func(yield func(*feed.Batch, error) bool) {
		type result struct {
			batch *feed.Batch
			err   error
		}
		results := make(chan result, prefetch)
		done := make(chan struct{})
		defer close(done)
		go func() {
			defer close(results)
			order := l.order(epoch)
			for b := from; b < l.Batches(); b++ {
				batch, err := l.batch(epoch, order[b*l.opt.Batch:min((b+1)*l.opt.Batch, len(order))])
				select {
				case results <- result{batch, err}:
				case <-done:
					return
				}
			}
		}()
		for r := range results {
			if !yield(r.batch, r.err) {
				return
			}
		}
	}
}

// order returns the images' indices in the order of an epoch.
func (l *Loader) order(epoch int) []int {
	if l.opt.Augment != nil {
		return rand.New(rand.NewPCG(l.opt.Seed, uint64(epoch)<<32)).Perm(l.images.Len())
	}
	order := make([]int, l.images.Len())
	for i := range order {
		order[i] = i
	}
	return order
}

func (l *Loader) batch(epoch int, indices []int) (*feed.Batch, error) {
	h, w := l.images.Height, l.images.Width
	if l.opt.Size > 0 {
		h, w = l.opt.Size, l.opt.Size
	}
	area := h * w
	b := &feed.Batch{Indices: indices, N: len(indices), C: 1, H: h, W: w, Images: make([]float32, len(indices)*area)}
	if l.images.Masks != nil {
		b.Targets = make([]uint8, len(indices)*area)
	}
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for i, index := range indices {
		g.Go(func() error {
			var mask []uint8
			if b.Targets != nil {
				mask = b.Targets[i*area : (i+1)*area]
			}
			return l.item(epoch, index, b.Images[i*area:(i+1)*area], mask)
		})
	}
	return b, g.Wait()
}

// item writes one image and, unless mask is nil, its mask.
func (l *Loader) item(epoch, index int, img []float32, mask []uint8) error {
	params := augment.Identity()
	if l.opt.Augment != nil {
		// Counted from 1, so that no image shares the order's stream.
		params = l.opt.Augment.Draw(rand.New(rand.NewPCG(l.opt.Seed, uint64(epoch)<<32|uint64(index+1))))
	}
	plan, err := params.Plan(l.images.Height, l.images.Width, l.opt.Size)
	if err != nil {
		return fmt.Errorf("train: %s: %w", l.images.Names[index], err)
	}
	src := make([]float32, len(l.images.Pixels[index]))
	for i, v := range l.images.Pixels[index] {
		src[i] = float32(v) / 255
	}
	plan.Image(img[:0], src)
	if mask != nil {
		augment.Mask(&plan, mask[:0], l.images.Masks[index])
	}
	return nil
}
