package data

import (
	"errors"
	"fmt"
	"image"
	"math"
	"slices"

	"github.com/hcunet/hcunet/data/clahe"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/data/resize"
)

// A Preparation says how a film becomes a training image. It is part of the
// description of a model, in JSON, because a network must see films that were
// prepared in the same way as its training images.
type Preparation struct {
	Size        int                `json:"size"` // width and height in pixels
	Fit         resize.Fit         `json:"fit"`  // how films that are not square are fitted
	MaskScaling resize.MaskScaling `json:"mask_scaling"`
	CLAHE       bool               `json:"clahe"`     // equalizes the contrast, as in the notebook
	VOI         bool               `json:"voi"`       // first applies the window of a DICOM file
	Stretch16   bool               `json:"stretch16"` // stretches the values of a 16-bit picture to the range of bytes, see picture.Options
	Bits        int                `json:"bits"`      // of the image: 8, or 16 without CLAHE

	// Mean and Std are the statistics of the training images' values in [0, 1],
	// for each channel; nil if they are not known yet.
	Mean Values `json:"mean,omitempty"`
	Std  Values `json:"std,omitempty"`
}

// DefaultPreparation returns the notebook's preparation, except for 16-bit
// pictures: their values are stretched to the range of bytes, so that 12-bit
// data does not become black.
func DefaultPreparation() Preparation {
	p := KernelPreparation()
	p.Stretch16 = true
	return p
}

// KernelPreparation returns the notebook's preparation, for 256x256 pixels.
func KernelPreparation() Preparation { return Preparation{Size: 256, CLAHE: true, Bits: 8} }

// Check returns an error that says what is wrong with a preparation for a task.
func (p Preparation) Check(task Task) error {
	if err := task.checkFiles(); err != nil {
		return err
	}
	if _, err := p.Fit.MarshalText(); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if _, err := p.MaskScaling.MarshalText(); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	switch {
	case p.Size < 8 || p.Size > 1<<13:
		return fmt.Errorf("data: size %d; wanted 8 to %d pixels", p.Size, 1<<13)
	case p.Bits != 8 && p.Bits != 16:
		return fmt.Errorf("data: images of %d bits; wanted 8 or 16", p.Bits)
	case p.CLAHE && p.Bits == 16:
		return errors.New("data: CLAHE gives images of 8 bits; leave it out for 16")
	case p.CLAHE && task.Channels > 1:
		return fmt.Errorf("data: CLAHE is for grey images, but the task has %d channels; leave it out", task.Channels)
	case p.MaskScaling == resize.MaskLinear && (len(task.Classes) > 2 || task.Ignore):
		return fmt.Errorf("data: mask scaling %s is only for two classes, because it mixes the values of neighbours; use %s", p.MaskScaling, resize.MaskNearest)
	}
	if p.Mean != nil || p.Std != nil {
		if err := CheckMoments(p.Mean, p.Std); err != nil {
			return fmt.Errorf("data: %w", err)
		}
		if len(p.Mean) != task.Channels {
			return fmt.Errorf("data: statistics of %d channels for a task of %d", len(p.Mean), task.Channels)
		}
	}
	return nil
}

// A Preparer prepares one film after another for a task and reuses its buffers.
// It must not be used by several goroutines at once.
type Preparer struct {
	// MaxPixels is the largest width times height of a film that Open and Read
	// accept; 0 means 1<<27.
	MaxPixels int

	p        Preparation
	task     Task
	contrast clahe.Equalizer
}

// NewPreparer returns a Preparer. It returns an error if the preparation or the
// task is not valid.
func NewPreparer(p Preparation, task Task) (*Preparer, error) {
	if err := p.Check(task); err != nil {
		return nil, err
	}
	return &Preparer{p: p, task: task}, nil
}

// A Prepared is a training image that was made of a film.
type Prepared struct {
	Image    *picture.Image
	Geometry resize.Geometry // where the film lies in the image
	Levels   int             // number of different values in the film
	Sums     []clahe.Stats   // sums of the values in [0, 1], per channel; with CLAHE before they became bytes
}

// Image prepares a film. It does not change the pixels of the film.
func (p *Preparer) Image(film *Film) (*Prepared, error) {
	if err := film.Image.Check(); err != nil {
		return nil, err
	}
	w, h := film.Image.Width, film.Image.Height
	out := &Prepared{
		Geometry: resize.Geometry{FilmWidth: w, FilmHeight: h, Width: p.p.Size, Height: p.p.Size, Fit: p.p.Fit},
		Levels:   levels(film.Image),
		Image:    &picture.Image{Width: p.p.Size, Height: p.p.Size, Channels: film.Image.Channels},
	}
	if film.Image.Channels != p.task.Channels || film.Image.Bits() != p.p.Bits {
		return nil, fmt.Errorf("data: a film of %d channels of %d bits, wanted %d of %d", film.Image.Channels, film.Image.Bits(), p.task.Channels, p.p.Bits)
	}
	for c := range film.Image.Channels {
		if err := p.plane(film.Image, c, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// plane prepares one channel.
func (p *Preparer) plane(film *picture.Image, c int, out *Prepared) error {
	n := film.Width * film.Height
	if film.Pix16 != nil {
		pix, err := out.Geometry.Image16(film.Pix16[c*n:][:n])
		if err != nil {
			return err
		}
		out.Image.Pix16 = append(out.Image.Pix16, pix...)
		out.Sums = append(out.Sums, sums(pix, math.MaxUint16))
		return nil
	}
	img, err := out.Geometry.Image(&image.Gray{Pix: film.Pix8[c*n:][:n], Stride: film.Width, Rect: image.Rect(0, 0, film.Width, film.Height)})
	if err != nil {
		return err
	}
	if p.p.CLAHE {
		var s clahe.Stats
		if img, s, err = p.contrast.Gray(img, img); err != nil {
			return err
		}
		out.Sums = append(out.Sums, s)
	} else {
		out.Sums = append(out.Sums, sums(img.Pix, math.MaxUint8))
	}
	out.Image.Pix8 = append(out.Image.Pix8, img.Pix...)
	return nil
}

func sums[T uint8 | uint16](pix []T, top float64) (s clahe.Stats) {
	for _, v := range pix {
		x := float64(v) / top
		s.N++
		s.Sum += x
		s.SumSq += x * x
	}
	return s
}

// Mask prepares the mask of a film. mask has the values of a mask file and the size
// of the film. Mask returns the classes in the size of the image, and the number of
// pixels of the film that are neither background nor ignored.
func (p *Preparer) Mask(mask *image.Gray, g resize.Geometry) (small *image.Gray, drawn int, err error) {
	if len(mask.Pix) != g.FilmWidth*g.FilmHeight || mask.Stride != g.FilmWidth {
		return nil, 0, fmt.Errorf("data: a mask of %d values, %d from row to row, for a film of %dx%d", len(mask.Pix), mask.Stride, g.FilmWidth, g.FilmHeight)
	}
	full := &image.Gray{Pix: slices.Clone(mask.Pix), Stride: mask.Stride, Rect: mask.Rect}
	if err := p.task.Targets(full.Pix); err != nil {
		return nil, 0, err
	}
	drawn = objects(full.Pix)
	two := len(p.task.Classes) == 2 && !p.task.Ignore
	if two {
		p.task.Values(full.Pix)
	}
	if small, err = g.Mask(full, p.p.MaskScaling); err != nil {
		return nil, 0, err
	}
	if two {
		for i, v := range small.Pix {
			small.Pix[i] = v / 255
		}
	}
	return small, drawn, nil
}

// objects returns the number of pixels that are neither background nor ignored.
func objects(targets []uint8) (n int) {
	for _, v := range targets {
		if v != 0 && v != Ignored {
			n++
		}
	}
	return n
}
