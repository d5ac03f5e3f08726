// Package picture reads PNG and JPEG files: as grey images, with the channels
// and bits of the file, or as masks of class indices.
//
// Files need not be trusted: no more memory is allocated than the size of the
// file justifies, and the error for a broken file names it. An EXIF orientation
// is undone, so that a picture is as it should be displayed.
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
	// Channels is 1 for grey and 3 for red, green and blue; 0 means the
	// channels of the file. A grey file read with 3 has three equal channels.
	Channels int

	// Stretch, which only OpenGray and ReadGray use, maps the darkest value of a
	// 16-bit image to 0 and the brightest to 255. Without it the lower byte is
	// dropped, as in OpenCV and the standard library, and 12-bit data in a 16-bit
	// file becomes almost black.
	Stretch bool

	// NoRotate ignores an EXIF orientation and leaves the pixels as they are
	// stored.
	NoRotate bool

	// MaxPixels is the largest width times height; 0 means 1<<27. A larger image is an
	// error that wraps ErrLimit.
	MaxPixels int
}

// ErrLimit is wrapped by the errors for images of more pixels than Options.MaxPixels and
// for files of more than 1 GiB.
var ErrLimit = errors.New("over the limit")

// maxFileBytes is the largest file that is read into memory.
const maxFileBytes = 1 << 30

// maxPixelsPerByte limits the size in a header by the size of the file: deflate
// packs at most 1032 bytes into one, and a PNG pixel takes at least one bit of
// that. A JPEG block of 64 pixels takes at least two bits.
//
// Source: https://zlib.net/zlib_tech.html.
const maxPixelsPerByte = 1032 * 8

// An Image is a picture of 8 or 16 bits. The value of channel c at row y and
// column x is element (c*Height+y)*Width+x of Pix8 or Pix16; the other one is
// nil.
type Image struct {
	Width, Height, Channels int

	Pix8  []uint8
	Pix16 []uint16

	// Faded says that the file has colours, which became grey because
	// Options.Channels is 1.
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

// Check returns an error if the number of values does not match the size of the
// image.
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
// If Options.Channels is 1, colours become luma, (19595R + 38470G + 7471B +
// 32768) >> 16, as in Pillow and the standard library; a colour JPEG gives its
// stored luma channel. Transparency is ignored, as in Pillow and OpenCV.
//
// Grey JPEG pixels equal those of libjpeg bit for bit, and so OpenCV's grey pixels.
// A stream that breaks the standard or has four colours is read by the decoder of
// the standard library, if that can read it; then a pixel may differ by one level.
// This is also true of a picture that is read with its colours.
//
// For a stream that is neither PNG nor JPEG, the error wraps image.ErrFormat;
// for a broken or unsupported one, the error of the decoder.
func Read(r io.Reader, opt *Options) (*Image, error) {
	return named(read(r, opt))
}

// Of converts an image of the standard library. The result has one channel or
// three, or, if channels is 0, as many as the image needs. It shares the pixels of
// an *image.Gray.
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

// ReadGray reads a picture as Read does with one channel, and returns 8-bit values
// with the corner at (0, 0).
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

// open opens a file and calls read. The error names the file.
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

// named puts the name of the package in front of an error.
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

// readAll reads a file. It returns an error if the size in the header is not
// possible.
func readAll(r io.Reader, o *Options) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("image file of more than %d bytes: %w", maxFileBytes, ErrLimit)
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
		return nil, fmt.Errorf("image of %dx%d pixels; at most %d are read: %w", c.Width, c.Height, most, ErrLimit)
	case n > maxPixelsPerByte*int64(len(b)):
		return nil, fmt.Errorf("header says %dx%d pixels, but the file has only %d bytes", c.Width, c.Height, len(b))
	}
	return b, nil
}

// whole replaces the EOF of a decoder by an error that a user understands.
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

// Is returns whether a file that begins with head, eight bytes or more, is a PNG
// or JPEG picture.
func Is(head []byte) bool { return configOf(head) != nil }

// configOf returns the function that reads the header of a file with these first
// bytes, nil if there is none. It does not use the registry of package image, so
// importing this package registers nothing, and formats that other packages
// registered are not read.
func configOf(b []byte) func(io.Reader) (image.Config, error) {
	switch {
	case bytes.HasPrefix(b, []byte(pngHeader)):
		return png.DecodeConfig
	case bytes.HasPrefix(b, []byte(jpegHeader)):
		return stdjpeg.DecodeConfig
	}
	return nil
}

// decode decodes a file whose size was checked. Our JPEG decoder is exact but
// strict, and returns only grey. What it refuses is read by the standard library,
// whose error is returned if that fails too.
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

// Size returns the width and height, as stored, of a PNG or JPEG file. It reads
// only the beginning of the file.
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
