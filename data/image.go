package data

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	stdjpeg "image/jpeg"
	"image/png"
	"io"
	"math"
	"os"

	"github.com/hcunet/hcunet/data/internal/jpeg"
)

// ImageOptions say how a picture becomes grey; nil means all defaults.
type ImageOptions struct {
	// Stretch maps the darkest value of a 16-bit image to 0 and the brightest to
	// 255. Without it the lower byte is dropped, as OpenCV and the standard
	// library do, and 12-bit data in a 16-bit file comes out almost black.
	Stretch bool

	// NoRotate leaves the pixels as they are stored and ignores an EXIF
	// orientation.
	NoRotate bool

	// MaxPixels bounds width times height; 0 means 1<<27.
	MaxPixels int
}

func (o *ImageOptions) maxPixels() int {
	if o == nil || o.MaxPixels == 0 {
		return 1 << 27
	}
	return o.MaxPixels
}

// maxImageBytes bounds a file before it is read into memory.
const maxImageBytes = 1 << 30

// maxPixelsPerByte bounds what a header may claim beside the size of its file:
// deflate packs at most 1032 bytes into one, and a PNG or JPEG pixel takes at
// least a bit of that or, in a JPEG block of 64, two.
//
// Source: https://zlib.net/zlib_tech.html.
const maxPixelsPerByte = 1032 * 8

// OpenImage reads the PNG or JPEG file at path; see ReadImage.
func OpenImage(path string, opt *ImageOptions) (*image.Gray, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	img, err := readImage(f, opt)
	if err != nil {
		return nil, fmt.Errorf("data: %s: %w", path, err)
	}
	return img, nil
}

// ReadImage reads a PNG or JPEG image of any kind as 8-bit grey values in
// row-major order, its corner at (0, 0).
//
// Colours become luma, (19595R + 38470G + 7471B + 32768) >> 16, as in Pillow and
// the standard library; transparency is ignored, as in Pillow and OpenCV; of a
// colour JPEG the luma channel is taken as it is stored. An EXIF orientation is
// undone, so that the picture stands as it is to be seen.
//
// JPEG pixels are, bit for bit, those of libjpeg, and so of OpenCV's grey ones. A
// stream that breaks the standard or has four colours goes to the standard
// library's decoder, and where that can read it, a pixel may be a level off.
//
// A stream that is neither PNG nor JPEG gives an error that wraps
// image.ErrFormat, a broken or unsupported one the decoder's own error.
func ReadImage(r io.Reader, opt *ImageOptions) (*image.Gray, error) {
	img, err := readImage(r, opt)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return img, nil
}

func readImage(r io.Reader, opt *ImageOptions) (*image.Gray, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxImageBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxImageBytes {
		return nil, fmt.Errorf("image file of more than %d bytes", maxImageBytes)
	}
	if opt == nil {
		opt = &ImageOptions{}
	}
	decode, config := decoder(b)
	if decode == nil {
		return nil, fmt.Errorf("not a PNG or JPEG image: %w", image.ErrFormat)
	}
	c, err := config(bytes.NewReader(b))
	if err != nil {
		return nil, whole(err)
	}
	if c.Width <= 0 || c.Height <= 0 {
		return nil, fmt.Errorf("image of %dx%d pixels", c.Width, c.Height)
	}
	if n, most := int64(c.Width)*int64(c.Height), int64(opt.maxPixels()); n > most {
		return nil, fmt.Errorf("image of %dx%d pixels; at most %d are read", c.Width, c.Height, most)
	} else if n > maxPixelsPerByte*int64(len(b)) {
		return nil, fmt.Errorf("header says %dx%d pixels, but the file has only %d bytes", c.Width, c.Height, len(b))
	}
	img, err := decode(b)
	if err != nil {
		return nil, whole(err)
	}
	g := grey(img, opt.Stretch)
	if !opt.NoRotate {
		g = orient(g, orientation(b))
	}
	return g, nil
}

// whole gives a decoder's bare EOF words that a user understands.
func whole(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("image file is cut short: %w", err)
	}
	return err
}

// decoder returns the decoder that belongs to a file's first bytes. It asks no
// registry: importing this package registers nothing, and what another package
// registered is not read by surprise.
func decoder(b []byte) (decode func(file []byte) (image.Image, error), config func(io.Reader) (image.Config, error)) {
	switch {
	case bytes.HasPrefix(b, []byte(pngHeader)):
		return decodePNG, png.DecodeConfig
	case bytes.HasPrefix(b, []byte("\xff\xd8\xff")):
		return decodeJPEG, stdjpeg.DecodeConfig
	}
	return nil, nil
}

func decodePNG(file []byte) (image.Image, error) { return png.Decode(bytes.NewReader(file)) }

// decodeJPEG decodes a JPEG whose size has been found right. Our decoder is exact
// but strict; whatever it refuses, the standard library may read or find words for.
func decodeJPEG(file []byte) (image.Image, error) {
	img, err := jpeg.DecodeGrey(file, jpeg.Limits{Pixels: math.MaxInt})
	if err != nil {
		return stdjpeg.Decode(bytes.NewReader(file))
	}
	return &image.Gray{Pix: img.Pix8, Stride: img.Width, Rect: image.Rect(0, 0, img.Width, img.Height)}, nil
}

// imageSize reads a PNG's or JPEG's width and height, as stored, from the
// beginning of a file.
func imageSize(path string) (width, height int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	head := make([]byte, 8)
	n, err := io.ReadFull(f, head)
	if err != nil && n == 0 {
		return 0, 0, fmt.Errorf("data: %s: empty file", path)
	}
	_, config := decoder(head[:n])
	if config == nil {
		return 0, 0, fmt.Errorf("data: %s: not a PNG or JPEG image: %w", path, image.ErrFormat)
	}
	c, err := config(io.MultiReader(bytes.NewReader(head[:n]), f))
	if err != nil {
		return 0, 0, fmt.Errorf("data: %s: %w", path, whole(err))
	}
	return c.Width, c.Height, nil
}

// luma returns the ITU-R 601 luma of 8-bit components.
func luma(r, g, b uint8) uint8 {
	return uint8((19595*uint32(r) + 38470*uint32(g) + 7471*uint32(b) + 1<<15) >> 16)
}

// grey returns img as 8-bit grey values with its corner at (0, 0).
func grey(img image.Image, stretch bool) *image.Gray {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	dst := image.NewGray(image.Rect(0, 0, w, h))
	switch src := img.(type) {
	case *image.Gray:
		if src.Rect.Min == (image.Point{}) && src.Stride == w {
			// The standard library's JPEG decoder leaves whole blocks of 8 rows.
			src.Pix = src.Pix[: w*h : w*h]
			return src
		}
		for y := range h {
			copy(dst.Pix[y*w:][:w], src.Pix[y*src.Stride:])
		}
	case *image.YCbCr:
		for y := range h {
			copy(dst.Pix[y*w:][:w], src.Y[y*src.YStride:])
		}
	case *image.NRGBA:
		greyRows(dst, src.Pix, src.Stride, 4)
	case *image.RGBA: // as the PNG decoder makes it for images without transparency
		greyRows(dst, src.Pix, src.Stride, 4)
	case *image.Paletted:
		var table [256]uint8
		for i, c := range src.Palette {
			table[i] = greyOf(c)
		}
		for y := range h {
			for x, v := range src.Pix[y*src.Stride:][:w] {
				dst.Pix[y*w+x] = table[v]
			}
		}
	case *image.Gray16:
		grey16(dst, func(x, y int) uint32 {
			i := y*src.Stride + 2*x
			return uint32(src.Pix[i])<<8 | uint32(src.Pix[i+1])
		}, stretch)
	case *image.NRGBA64:
		grey16(dst, luma16(src.Pix, src.Stride), stretch)
	case *image.RGBA64: // without transparency
		grey16(dst, luma16(src.Pix, src.Stride), stretch)
	default:
		for y := range h {
			for x := range w {
				dst.Pix[y*w+x] = greyOf(img.At(b.Min.X+x, b.Min.Y+y))
			}
		}
	}
	return dst
}

func greyRows(dst *image.Gray, pix []uint8, stride, step int) {
	w := dst.Rect.Dx()
	for y := range dst.Rect.Dy() {
		row := pix[y*stride:]
		for x := range w {
			p := row[step*x : step*x+3 : step*x+3]
			dst.Pix[y*w+x] = luma(p[0], p[1], p[2])
		}
	}
}

func luma16(pix []uint8, stride int) func(x, y int) uint32 {
	return func(x, y int) uint32 {
		p := pix[y*stride+8*x:][:6]
		r, g, b := uint64(p[0])<<8|uint64(p[1]), uint64(p[2])<<8|uint64(p[3]), uint64(p[4])<<8|uint64(p[5])
		return uint32((19595*r + 38470*g + 7471*b + 1<<15) >> 16)
	}
}

// grey16 brings values of 0 to 65535 to bytes.
func grey16(dst *image.Gray, at func(x, y int) uint32, stretch bool) {
	w, h := dst.Rect.Dx(), dst.Rect.Dy()
	if !stretch {
		for y := range h {
			for x := range w {
				dst.Pix[y*w+x] = uint8(at(x, y) >> 8)
			}
		}
		return
	}
	lo, hi := uint32(1<<16-1), uint32(0)
	for y := range h {
		for x := range w {
			v := at(x, y)
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	span := max(hi-lo, 1)
	for y := range h {
		for x := range w {
			dst.Pix[y*w+x] = uint8(((at(x, y)-lo)*255 + span/2) / span)
		}
	}
}
