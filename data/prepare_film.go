package data

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"

	"github.com/hcunet/hcunet/data/clahe"
	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/rle"
)

// chain takes one film after another from its file to the output folder. It
// serves one goroutine.
type chain struct {
	opt      *PrepareOptions
	contrast clahe.Equalizer
	encoder  png.Encoder
	image    bytes.Buffer // encoded
	mask     bytes.Buffer
	black    []byte // an empty mask, encoded: most films have it
}

// onePool lends one encoder's buffers again and again.
type onePool struct{ b *png.EncoderBuffer }

func (p *onePool) Get() *png.EncoderBuffer  { return p.b }
func (p *onePool) Put(b *png.EncoderBuffer) { p.b = b }

func newChain(opt *PrepareOptions) (*chain, error) {
	c := &chain{opt: opt, encoder: png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: &onePool{}}}
	if err := c.encoder.Encode(&c.mask, image.NewGray(image.Rect(0, 0, opt.Size, opt.Size))); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	c.black = bytes.Clone(c.mask.Bytes())
	return c, nil
}

// prepare writes what becomes of f and returns what is to be remembered of it.
// Errors of the film are *sourceError.
func (c *chain) prepare(f *film) (*record, error) {
	rec := &record{Key: f.key(), Source: f.path, Stamp: f.stamp, Label: f.label.stamp}
	img, err := c.read(f, rec)
	if err != nil {
		return nil, &sourceError{f.path, bare(err, f.path)}
	}
	rec.Width, rec.Height = img.Rect.Dx(), img.Rect.Dy()
	small, err := FitImage(img, c.opt.Size, c.opt.Size, c.opt.Fit)
	if err != nil {
		return nil, &sourceError{f.path, bare(err, f.path)}
	}
	if c.opt.NoCLAHE {
		for _, v := range small.Pix {
			x := float64(v) / 255
			rec.Stats.N++
			rec.Stats.Sum += x
			rec.Stats.SumSq += x * x
		}
	} else {
		small, rec.Stats = c.contrast.Gray(small, small)
	}
	c.image.Reset()
	if err := c.encoder.Encode(&c.image, small); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if f.split == TrainDir {
		if err := c.writeMask(f, img, rec); err != nil {
			return nil, err
		}
	}
	rec.ImageBytes = int64(c.image.Len())
	return rec, writeWhole(filepath.Join(c.opt.Out, f.split, f.name+".png"), c.image.Bytes())
}

// read returns the film's pixels, and puts what its file says of it into rec.
func (c *chain) read(f *film, rec *record) (*image.Gray, error) {
	rec.Patient = f.patient
	if f.kind != dicomFile {
		return picture.OpenGray(f.path, &picture.Options{Stretch: c.opt.Stretch16})
	}
	d, err := dicom.Open(f.path, &dicom.Options{ApplyVOI: c.opt.VOI})
	if err != nil {
		return nil, err
	}
	if rec.Patient == "" {
		rec.Patient = d.PatientID
	}
	rec.Age, rec.Sex, rec.View = d.Age, d.Sex, d.View
	return d.Gray(), nil
}

// bare takes off what a sourceError about the file at path says again.
func bare(err error, path string) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return bareError{err, path}
}

type bareError struct {
	error
	path string
}

func (e bareError) Error() string {
	return strings.TrimPrefix(strings.TrimPrefix(e.error.Error(), "data: "), e.path+": ")
}

func (e bareError) Unwrap() error { return e.error }

// writeMask writes the mask of a film whose picture at full size is img.
func (c *chain) writeMask(f *film, img *image.Gray, rec *record) error {
	path := filepath.Join(c.opt.Out, MasksDir, f.name+".png")
	if f.label.empty() {
		rec.MaskBytes = int64(len(c.black))
		return writeWhole(path, c.black)
	}
	full, err := c.drawMask(f, img)
	if err != nil {
		return &sourceError{f.path, err}
	}
	white := []byte{255}
	rec.MaskPixels = bytes.Count(full.Pix, white)
	small, err := FitMask(full, c.opt.Size, c.opt.Size, c.opt.Fit, c.opt.MaskScaling)
	if err != nil {
		return &sourceError{f.path, bare(err, f.path)}
	}
	rec.White = bytes.Count(small.Pix, white)
	c.mask.Reset()
	if err := c.encoder.Encode(&c.mask, small); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	rec.MaskBytes = int64(c.mask.Len())
	return writeWhole(path, c.mask.Bytes())
}

// drawMask returns the film's mask, 0 and 255, in the film's shape.
func (c *chain) drawMask(f *film, img *image.Gray) (*image.Gray, error) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	if f.label.path != "" {
		m, err := picture.OpenGray(f.label.path, nil)
		if err != nil {
			return nil, fmt.Errorf("its mask: %w", bareError{err, ""})
		}
		// A mask drawn on the stored picture turns with it; one drawn on the
		// picture as it is seen has its shape already.
		if mw, mh := m.Rect.Dx(), m.Rect.Dy(); (mw != w || mh != h) && mw == h && mh == w {
			turned, err := turnLike(m, f.path)
			if err != nil {
				return nil, err
			}
			m = turned
		}
		if m.Rect != img.Rect {
			return nil, fmt.Errorf("it has %s pixels, but its mask %s has %s", size(img), f.label.path, size(m))
		}
		binarize(m)
		return m, nil
	}
	if n := c.opt.RLESize; n != 0 {
		w, h = n, n
	}
	m, err := f.label.table.Mask(f.name, w, h)
	if err != nil {
		return nil, fmt.Errorf("its runs, on %dx%d pixels: %w", w, h, bare(err, f.path))
	}
	if m.Rect != img.Rect {
		return rle.Resize(m, img.Rect.Dx(), img.Rect.Dy()), nil
	}
	return m, nil
}

// turnLike turns a mask by the EXIF orientation of the picture at path.
func turnLike(m *image.Gray, path string) (*image.Gray, error) {
	b, err := os.ReadFile(path)
	if err != nil || len(b) < 8 {
		return m, err
	}
	return picture.Turn(m, picture.Orientation(b)), nil
}

// writeWhole writes one prepared file: whole or not at all, however the process
// ends. Thousands of files do not wait for the disk one by one: what a power cut
// takes away is found missing by its size when Prepare is called again.
func writeWhole(path string, b []byte) error {
	dir, name := filepath.Split(path)
	tmp := fmt.Sprintf("%s.%s.%d.tmp", dir, name, os.Getpid())
	err := os.WriteFile(tmp, b, 0o666)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("data: %w; make room or choose another output folder and run again", err)
	}
	return nil
}
