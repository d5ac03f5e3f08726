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

// chain prepares one film after another and writes the files. It must not be
// used by several goroutines at once.
type chain struct {
	opt      *Options
	preparer *data.Preparer
	encoder  png.Encoder
	image    bytes.Buffer // encoded
	mask     bytes.Buffer
	black    []byte // an empty mask, encoded; most films have it
}

// onePool always returns the same buffer to the PNG encoder.
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

// prepare writes the image and the mask of f and returns its record for the
// journal. An error in the film or its mask is a *sourceError.
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

// write writes a file with the name of a film to the folder sub of the output
// folder.
func (c *chain) write(sub string, f *film, b []byte) error {
	name, err := data.FileName(f.name)
	if err != nil {
		return &sourceError{f.path, bare(err, f.path)}
	}
	return writeWhole(filepath.Join(c.opt.Out, sub, name+".png"), b)
}

// bare removes from an error the names of packages and the path that a
// sourceError repeats.
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

// writeMask writes the mask of a film; g says where the film lies in its image.
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

// drawMask returns the mask of a film as the values of a mask file, in the size of
// the film.
func (c *chain) drawMask(f *film, g resize.Geometry, rec *record) (*image.Gray, error) {
	w, h := g.FilmWidth, g.FilmHeight
	if f.label.path != "" {
		m, err := picture.OpenMask(f.label.path, nil)
		if err != nil {
			return nil, fmt.Errorf("its mask: %w", bareError{err, ""})
		}
		// A mask that was drawn on the picture as stored must be turned like
		// the picture; a mask drawn on the picture as displayed already has the
		// right shape.
		if mw, mh := m.Rect.Dx(), m.Rect.Dy(); (mw != w || mh != h) && mw == h && mh == w {
			if m, err = turnLike(m, f.path); err != nil {
				return nil, err
			}
		}
		if mw, mh := m.Rect.Dx(), m.Rect.Dy(); mw != w || mh != h {
			return nil, fmt.Errorf("it has %dx%d pixels, but its mask %s has %dx%d", w, h, f.label.path, mw, mh)
		}
		if len(c.opt.Task.Classes) == 2 && !c.opt.Task.Ignore && binarize(m.Pix) {
			rec.Warnings = append(rec.Warnings, "its mask has grey values besides 0 and 255; values of 128 and above are mask")
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

// binarize sets the values of a two-class mask to 0 and 255, in place. If the mask
// has two values, the higher one is mask, so that 0 and 1 work as well as 0 and 255.
// If it has more, values of 128 and above are mask, and binarize returns true.
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

// writeWhole writes one prepared file, completely or not at all, even if the
// process is killed. For speed it does not sync each file to the disk: a file
// that a power cut truncates is found by its size when Run is called again.
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
