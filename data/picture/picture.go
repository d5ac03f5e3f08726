// Package picture reads PNG and JPEG files: as grey images, as values of as many
// channels and bits as the file has, or as masks of class indices.
//
// Files come from strangers: nothing is allocated that the size of the file does
// not justify, and what is wrong with a file is an error that names it. An EXIF
// orientation is undone, so that a picture stands as it is to be seen.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	stdjpeg "image/jpeg"
	"image/png"
	"io"
	"math"
	"os"

	"github.com/hcunet/hcunet/data/internal/jpeg"
)

// Options say how a picture is read; nil means all defaults.
type Options struct {
	// Channels is 1 for grey and 3 for red, green and blue; 0 means as the file
	// has them. A grey file read as colour has three equal channels.
	Channels int

	// Stretch is of OpenGray and ReadGray alone: it maps the darkest value of a
	// 16-bit image to 0 and the brightest to 255. Without it the lower byte is
	// dropped, as OpenCV and the standard library do, and 12-bit data in a 16-bit
	// file comes out almost black.
	Stretch bool

	// NoRotate leaves the pixels as they are stored and ignores an EXIF
	// orientation.
	NoRotate bool

	// MaxPixels bounds width times height; 0 means 1<<27.
	MaxPixels int
}

// maxFileBytes bounds a file before it is read into memory.
const maxFileBytes = 1 << 30

// maxPixelsPerByte bounds what a header may claim beside the size of its file:
// deflate packs at most 1032 bytes into one, and a PNG or JPEG pixel takes at
// least a bit of that or, in a JPEG block of 64, two.
//
// Source: https://zlib.net/zlib_tech.html.
const maxPixelsPerByte = 1032 * 8

// An Image is a picture of 8 or 16 bits. Value y, x of channel c is element
// (c*Height+y)*Width+x of Pix8 or of Pix16, one of which is nil.
type Image struct {
	Width, Height, Channels int

	Pix8  []uint8
	Pix16 []uint16

	// Faded says that the file has colours, which Options.Channels made grey.
	Faded bool
}

// Bits returns 8 or 16.
func (m *Image) Bits() int {
	if m.Pix16 != nil {
		return 16
	}
	return 8
}

// At returns element i of the values, in [0, 1]. It panics if there is none.
func (m *Image) At(i int) float64 {
	if m.Pix16 != nil {
		return float64(m.Pix16[i]) / (1<<16 - 1)
	}
	return float64(m.Pix8[i]) / (1<<8 - 1)
}

// Check returns an error if the image has not the values that its size says.
func (m *Image) Check() error {
	n := len(m.Pix8)
	if m.Pix16 != nil {
		n = len(m.Pix16)
	}
	switch {
	case m.Width < 1 || m.Height < 1 || m.Channels < 1:
		return fmt.Errorf("picture: an image of %d channels of %dx%d pixels; wanted at least one of each", m.Channels, m.Width, m.Height)
	case m.Pix8 != nil && m.Pix16 != nil:
		return errors.New("picture: an image has values of 8 and of 16 bits; wanted one of them")
	case m.Width > math.MaxInt/m.Height || m.Width*m.Height > math.MaxInt/m.Channels || n != m.Channels*m.Height*m.Width:
		return fmt.Errorf("picture: an image of %d channels of %dx%d pixels has %d values", m.Channels, m.Width, m.Height, n)
	}
	return nil
}

// Open reads the PNG or JPEG file at path; see Read.
func Open(path string, opt *Options) (*Image, error) {
	return open(path, func(r io.Reader) (*Image, error) { return read(r, opt) })
}

// Read reads a PNG or JPEG image of any kind with one channel (grey) or three (red,
// green, blue), with 8 bits or, for PNG files of 16 bits, with 16. A file whose
// pixels are all grey has one channel, whatever it was saved as.
//
// Where Options.Channels is 1, colours become luma, (19595R + 38470G + 7471B +
// 32768) >> 16, as in Pillow and the standard library; of a colour JPEG the luma
// channel is taken as it is stored. Transparency is ignored, as in Pillow and
// OpenCV.
//
// Grey JPEG pixels are, bit for bit, those of libjpeg, and so of OpenCV's grey ones.
// A stream that breaks the standard or has four colours goes to the standard
// library's decoder, and where that can read it, a pixel may be a level off; so it
// may in a picture that is read with its colours.
//
// A stream that is neither PNG nor JPEG gives an error that wraps
// image.ErrFormat, a broken or unsupported one the decoder's own error.
func Read(r io.Reader, opt *Options) (*Image, error) {
	return named(read(r, opt))
}

// Of returns an image of the standard library as Read does that of a file, with one
// channel or three, or with as many as it needs where channels is 0. It shares the
// pixels of an *image.Gray.
func Of(img image.Image, channels int) (*Image, error) {
	if channels != 0 && channels != 1 && channels != 3 {
		return nil, fmt.Errorf("picture: %d channels were asked for; wanted 1 (grey) or 3 (red, green, blue)", channels)
	}
	if img == nil || img.Bounds().Empty() {
		return nil, errors.New("picture: the image is empty")
	}
	return planes(img, channels), nil
}

// OpenGray reads the PNG or JPEG file at path; see ReadGray.
func OpenGray(path string, opt *Options) (*image.Gray, error) {
	return open(path, func(r io.Reader) (*image.Gray, error) { return readGray(r, opt) })
}

// ReadGray reads a picture as Read does with one channel, as 8-bit values with the
// corner at (0, 0).
func ReadGray(r io.Reader, opt *Options) (*image.Gray, error) {
	return named(readGray(r, opt))
}

func readGray(r io.Reader, opt *Options) (*image.Gray, error) {
	var o Options
	if opt != nil {
		o = *opt
	}
	o.Channels = 1
	m, err := read(r, &o)
	if err != nil {
		return nil, err
	}
	return m.Gray(o.Stretch), nil
}

// open calls read with an open file, and names the file in its error.
func open[T any](path string, read func(io.Reader) (*T, error)) (*T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("picture: %w", err)
	}
	defer f.Close()
	v, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("picture: %s: %w", path, err)
	}
	return v, nil
}

// named gives an error the package's name.
func named[T any](v *T, err error) (*T, error) {
	if err != nil {
		return nil, fmt.Errorf("picture: %w", err)
	}
	return v, nil
}

func read(r io.Reader, opt *Options) (*Image, error) {
	var o Options
	if opt != nil {
		o = *opt
	}
	if o.Channels != 0 && o.Channels != 1 && o.Channels != 3 {
		return nil, fmt.Errorf("%d channels were asked for; wanted 1 (grey) or 3 (red, green, blue)", o.Channels)
	}
	b, err := readAll(r, &o)
	if err != nil {
		return nil, err
	}
	img, faded, err := decode(b, o.Channels == 1)
	if err != nil {
		return nil, whole(err)
	}
	m := planes(img, o.Channels)
	m.Faded = m.Faded || faded
	if !o.NoRotate {
		m = m.turned(Orientation(b))
	}
	return m, nil
}

// readAll reads a file whose header names a size that can be.
func readAll(r io.Reader, o *Options) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("image file of more than %d bytes", maxFileBytes)
	}
	config := configOf(b)
	if config == nil {
		return nil, fmt.Errorf("not a PNG or JPEG image: %w", image.ErrFormat)
	}
	c, err := config(bytes.NewReader(b))
	if err != nil {
		return nil, whole(err)
	}
	most := int64(1 << 27)
	if o.MaxPixels > 0 {
		most = int64(o.MaxPixels)
	}
	switch n := int64(c.Width) * int64(c.Height); {
	case c.Width <= 0 || c.Height <= 0:
		return nil, fmt.Errorf("image of %dx%d pixels", c.Width, c.Height)
	case n > most:
		return nil, fmt.Errorf("image of %dx%d pixels; at most %d are read", c.Width, c.Height, most)
	case n > maxPixelsPerByte*int64(len(b)):
		return nil, fmt.Errorf("header says %dx%d pixels, but the file has only %d bytes", c.Width, c.Height, len(b))
	}
	return b, nil
}

// whole gives a decoder's bare EOF words that a user understands.
func whole(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("image file is cut short: %w", err)
	}
	return err
}

const (
	pngHeader  = "\x89PNG\r\n\x1a\n"
	jpegHeader = "\xff\xd8\xff"
)

// Is says whether a file that begins with head, eight bytes or more, is a PNG or
// JPEG picture.
func Is(head []byte) bool { return configOf(head) != nil }

// configOf returns the reader of the header that belongs to a file's first bytes,
// nil if there is none. It asks no registry: importing this package registers
// nothing, and what another package registered is not read by surprise.
func configOf(b []byte) func(io.Reader) (image.Config, error) {
	switch {
	case bytes.HasPrefix(b, []byte(pngHeader)):
		return png.DecodeConfig
	case bytes.HasPrefix(b, []byte(jpegHeader)):
		return stdjpeg.DecodeConfig
	}
	return nil
}

// decode decodes a file whose size has been found right. Our JPEG decoder is exact
// but strict, and knows grey only; whatever it refuses, the standard library may
// read or find words for.
func decode(file []byte, grey bool) (img image.Image, faded bool, err error) {
	if bytes.HasPrefix(file, []byte(pngHeader)) {
		img, err = png.Decode(bytes.NewReader(file))
		return img, false, err
	}
	c, err := stdjpeg.DecodeConfig(bytes.NewReader(file))
	if err != nil {
		return nil, false, err
	}
	if colours := c.ColorModel != color.GrayModel; grey || !colours {
		if j, err := jpeg.DecodeGrey(file, jpeg.Limits{Pixels: math.MaxInt}); err == nil {
			return &image.Gray{Pix: j.Pix8, Stride: j.Width, Rect: image.Rect(0, 0, j.Width, j.Height)}, colours, nil
		}
	}
	img, err = stdjpeg.Decode(bytes.NewReader(file))
	if ycc, ok := img.(*image.YCbCr); ok && grey {
		return &image.Gray{Pix: ycc.Y, Stride: ycc.YStride, Rect: ycc.Rect}, true, err
	}
	return img, false, err
}

// Size reads a PNG's or JPEG's width and height, as stored, from the beginning of
// a file.
func Size(path string) (width, height int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("picture: %w", err)
	}
	defer f.Close()
	head := make([]byte, 8)
	n, err := io.ReadFull(f, head)
	if err != nil && n == 0 {
		return 0, 0, fmt.Errorf("picture: %s: empty file", path)
	}
	config := configOf(head[:n])
	if config == nil {
		return 0, 0, fmt.Errorf("picture: %s: not a PNG or JPEG image: %w", path, image.ErrFormat)
	}
	c, err := config(io.MultiReader(bytes.NewReader(head[:n]), f))
	if err != nil {
		return 0, 0, fmt.Errorf("picture: %s: %w", path, whole(err))
	}
	return c.Width, c.Height, nil
}
