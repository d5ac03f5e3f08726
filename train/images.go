package train

import (
	"fmt"
	"image"
	"math"
	"runtime"

	"github.com/hcunet/hcunet/data"
	"golang.org/x/sync/errgroup"
)

// Images are films of one size in memory, one byte a pixel, with their masks.
type Images struct {
	Names         []string
	Width, Height int
	Pixels        [][]uint8 // per image, row-major grey values
	Masks         [][]uint8 // per image, row-major classes 0 and 1; nil for a test set
}

// LoadImages reads samples of one size into memory, on all cores.
func LoadImages(samples []data.Sample, task data.Task) (*Images, error) {
	n := len(samples)
	s := &Images{Names: make([]string, n), Pixels: make([][]uint8, n)}
	masks := make([][]uint8, n)
	sizes := make([]image.Point, n)
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for i, sample := range samples {
		g.Go(func() error {
			img, mask, err := sample.Load(task)
			if err != nil {
				return err
			}
			if img.Channels != 1 || img.Pix8 == nil {
				return fmt.Errorf("train: %s has %d channels of %d bits, wanted 1 of 8", sample.Image, img.Channels, img.Bits())
			}
			s.Names[i], s.Pixels[i], sizes[i], masks[i] = sample.Name, img.Pix8, image.Pt(img.Width, img.Height), mask
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range samples {
		if sizes[i] != sizes[0] {
			return nil, fmt.Errorf("train: %s is %v, %s is %v; all images must have one size", s.Names[i], sizes[i], s.Names[0], sizes[0])
		}
		if (masks[i] == nil) != (masks[0] == nil) {
			return nil, fmt.Errorf("train: of %s and %s only one has a mask", s.Names[i], s.Names[0])
		}
	}
	if n > 0 {
		s.Width, s.Height = sizes[0].X, sizes[0].Y
		if masks[0] != nil {
			s.Masks = masks
		}
	}
	return s, nil
}

// Len returns the number of images.
func (s *Images) Len() int { return len(s.Names) }

// Subset returns the images of the given indices, sharing their pixels.
func (s *Images) Subset(indices []int) *Images {
	sub := &Images{Width: s.Width, Height: s.Height}
	for _, i := range indices {
		sub.Names = append(sub.Names, s.Names[i])
		sub.Pixels = append(sub.Pixels, s.Pixels[i])
		if s.Masks != nil {
			sub.Masks = append(sub.Masks, s.Masks[i])
		}
	}
	return sub
}

// Statistics returns mean and standard deviation of all values, in [0, 1].
func (s *Images) Statistics() (mean, std float64) {
	var n, sum, squares float64
	for _, pixels := range s.Pixels {
		var a, b uint64 // exact below 2^48 pixels
		for _, v := range pixels {
			a += uint64(v)
			b += uint64(v) * uint64(v)
		}
		n, sum, squares = n+float64(len(pixels)), sum+float64(a), squares+float64(b)
	}
	if n == 0 {
		return 0, 0
	}
	mean = sum / n / 255
	return mean, math.Sqrt(max(squares/n/255/255-mean*mean, 0))
}
