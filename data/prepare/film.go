package prepare

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/internal/words"
)

// chain takes one film after another from its file to the output folder. It
// serves one goroutine.
type chain struct {
	opt      *Options
	preparer *data.Preparer
	encoder  png.Encoder
	image    bytes.Buffer // encoded
	mask     bytes.Buffer
	black    []byte // an empty mask, encoded: most films have it
}

// onePool lends one encoder's buffers again and again.
type onePool struct{ b *png.EncoderBuffer }

func (p *onePool) Get() *png.EncoderBuffer  { return p.b }
func (p *onePool) Put(b *png.EncoderBuffer) { p.b = b }

func newChain(opt *Options) (*chain, error) {
	preparer, err := data.NewPreparer(opt.Preparation, opt.Task)
	if err != nil {
		return nil, err
	}
	c := &chain{opt: opt, preparer: preparer, encoder: png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: &onePool{}}}
	n := opt.Preparation.Size
	if err := c.encoder.Encode(&c.mask, image.NewGray(image.Rect(0, 0, n, n))); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	c.black = bytes.Clone(c.mask.Bytes())
	return c, nil
}

// prepare writes what becomes of f and returns what is to be remembered of it.
// Errors of the film are *sourceError.
func (c *chain) prepare(f *film) (*record, error) {
	rec := &record{Key: f.key(), Source: f.path, Stamp: f.stamp, Label: f.label.stamp}
	shown, err := c.preparer.Open(f.path)
	if err != nil {
		return nil, &sourceError{f.path, bare(err, f.path)}
	}
	made, err := c.preparer.Image(shown)
	if err != nil {
		return nil, &sourceError{f.path, bare(err, f.path)}
	}
	rec.Width, rec.Height, rec.Levels, rec.Sums = shown.Image.Width, shown.Image.Height, made.Levels, made.Sums
	rec.Patient, rec.Age, rec.Sex, rec.View = cmp.Or(f.patient, shown.PatientID), shown.Age, shown.Sex, shown.View
	rec.Warnings = shown.Warnings
	if made.Levels < data.FewestLevels {
		rec.Warnings = append(rec.Warnings, fmt.Sprintf("it has only %s", words.Count(made.Levels, "value", "different values")))
	}
	c.image.Reset()
	if err := c.encoder.Encode(&c.image, made.Image.Picture()); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if f.split == data.TrainDir {
		if err := c.writeMask(f, made.Geometry, rec); err != nil {
			return nil, err
		}
	}
	rec.ImageBytes = int64(c.image.Len())
	return rec, c.write(f.split, f, c.image.Bytes())
}

// write writes a file of the output folder that has the name of a film.
func (c *chain) write(sub string, f *film, b []byte) error {
	name, err := data.FileName(f.name)
	if err != nil {
		return &sourceError{f.path, bare(err, f.path)}
	}
	return writeWhole(filepath.Join(c.opt.Out, sub, name+".png"), b)
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
	text := e.error.Error()
	for _, name := range []string{"prepare: ", "data: ", "picture: ", "resize: ", "maskcsv: ", e.path + ": "} {
		text = strings.TrimPrefix(text, name)
	}
	return text
}

func (e bareError) Unwrap() error { return e.error }

// writeMask writes the mask of a film that lies so in its image.
func (c *chain) writeMask(f *film, g resize.Geometry, rec *record) error {
	if f.label.empty() {
		rec.MaskBytes = int64(len(c.black))
		return c.write(data.MasksDir, f, c.black)
	}
	full, err := c.drawMask(f, g, rec)
	if err != nil {
		return &sourceError{f.path, err}
	}
	small, drawn, err := c.preparer.Mask(full, g)
	if err != nil {
		return &sourceError{f.path, fmt.Errorf("its mask %s: %w", f.label.path, bareError{err, ""})}
	}
	rec.MaskPixels = drawn
	for _, v := range small.Pix {
		if v != 0 && v != data.Ignored {
			rec.Left++
		}
	}
	c.opt.Task.Values(small.Pix)
	c.mask.Reset()
	if err := c.encoder.Encode(&c.mask, small); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	rec.MaskBytes = int64(c.mask.Len())
	return c.write(data.MasksDir, f, c.mask.Bytes())
}

// drawMask returns the film's mask as the values of a mask file, in the film's shape.
func (c *chain) drawMask(f *film, g resize.Geometry, rec *record) (*image.Gray, error) {
	w, h := g.FilmWidth, g.FilmHeight
	if f.label.path != "" {
		m, err := picture.OpenMask(f.label.path, nil)
		if err != nil {
			return nil, fmt.Errorf("its mask: %w", bareError{err, ""})
		}
		// A mask drawn on the stored picture turns with it; one drawn on the
		// picture as it is seen has its shape already.
		if mw, mh := m.Rect.Dx(), m.Rect.Dy(); (mw != w || mh != h) && mw == h && mh == w {
			if m, err = turnLike(m, f.path); err != nil {
				return nil, err
			}
		}
		if mw, mh := m.Rect.Dx(), m.Rect.Dy(); mw != w || mh != h {
			return nil, fmt.Errorf("it has %dx%d pixels, but its mask %s has %dx%d", w, h, f.label.path, mw, mh)
		}
		if len(c.opt.Task.Classes) == 2 && !c.opt.Task.Ignore && binarize(m.Pix) {
			rec.Warnings = append(rec.Warnings, "its mask has grey values besides 0 and 255; 128 and above is mask")
		}
		return m, nil
	}
	if n := c.opt.RLESize; n != 0 {
		w, h = n, n
	}
	m, err := f.label.table.Mask(f.label.id, w, h)
	if err != nil {
		return nil, fmt.Errorf("its runs, on %dx%d pixels: %w", w, h, bare(err, f.path))
	}
	if w != g.FilmWidth || h != g.FilmHeight {
		return resize.Nearest(m, g.FilmWidth, g.FilmHeight)
	}
	return m, nil
}

// binarize makes a mask of two classes 0 and 255, in place: of two values the higher
// one is the mask, so that 0 and 1 are read as well as 0 and 255; of more, 128 and
// above is. It says whether there were more.
func binarize(mask []uint8) (grey bool) {
	var seen [256]bool
	for _, v := range mask {
		seen[v] = true
	}
	level, values := 128, 0
	for v, s := range seen {
		if s && v > 0 {
			if values++; values == 1 {
				level = v
			}
		}
	}
	if values > 1 {
		level = 128
	}
	for i, v := range mask {
		if int(v) >= level {
			mask[i] = 255
		} else {
			mask[i] = 0
		}
	}
	return values > 1
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
		return fmt.Errorf("prepare: %w; make room or choose another output folder and run again", err)
	}
	return nil
}
