package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
)

// OpenMask reads the PNG or JPEG file at path; see ReadMask.
func OpenMask(path string, opt *Options) (*image.Gray, error) {
	return open(path, func(r io.Reader) (*image.Gray, error) { return readMask(r, opt) })
}

// ReadMask reads a picture whose values are classes. Of a grey picture it returns the
// values: with 2 or 4 bits those that are stored, not those that a viewer shows; with 1
// bit 0 and 255. Of a palette picture it returns the indices, or the grey values if only
// black and white are used. A grey picture may be saved with colours or 16 bits, but it
// is an error if a value cannot be a class then. ReadMask does not check what the values
// mean.
func ReadMask(r io.Reader, opt *Options) (*image.Gray, error) {
	return named(readMask(r, opt))
}

func readMask(r io.Reader, opt *Options) (*image.Gray, error) {
	var o Options
	if opt != nil {
		o = *opt
	}
	b, err := readAll(r, &o)
	if err != nil {
		return nil, err
	}
	img, _, err := decode(b, false)
	if err != nil {
		return nil, whole(err)
	}
	var m *Image
	if p, ok := img.(*image.Paletted); ok && !blackAndWhite(p) {
		m = planes(&image.Gray{Pix: p.Pix, Stride: p.Stride, Rect: p.Rect}, 1)
	} else if m = planes(img, 0); m.Channels > 1 {
		return nil, errors.New("the mask has colours; wanted grey values or a palette, where the value of a pixel is the number of its class")
	}
	if m.Pix16 != nil {
		if m.Pix8, err = lowBytes(m.Pix16); err != nil {
			return nil, err
		}
		m.Pix16 = nil
	}
	// Bit depth and colour type are bytes 24 and 25 of a PNG file. The decoder has
	// scaled grey values of fewer than 8 bits to 0 to 255.
	const grey = 0
	if bytes.HasPrefix(b, []byte(pngHeader)) && b[25] == grey && b[24] > 1 && b[24] < 8 {
		spread := uint8(255 / (1<<b[24] - 1))
		for i := range m.Pix8 {
			m.Pix8[i] /= spread
		}
	}
	if !o.NoRotate {
		m = m.turned(Orientation(b))
	}
	return m.Gray(false), nil
}

// blackAndWhite returns whether black and white are the only colours in use.
func blackAndWhite(p *image.Paletted) bool {
	var other [256]bool
	for i, c := range p.Palette {
		n := color.NRGBAModel.Convert(c).(color.NRGBA)
		n.A = 255
		other[i] = n != color.NRGBA{0, 0, 0, 255} && n != color.NRGBA{255, 255, 255, 255}
	}
	for y := range p.Rect.Dy() {
		for _, v := range p.Pix[y*p.Stride:][:p.Rect.Dx()] {
			if other[v] {
				return false
			}
		}
	}
	return true
}

// lowBytes returns 16-bit values as classes. Values that were scaled from bytes to
// 0 to 65535 are scaled back.
func lowBytes(values []uint16) ([]uint8, error) {
	small, spread := true, true
	for _, v := range values {
		small = small && v < 256
		spread = spread && v>>8 == v&255
	}
	if !small && !spread {
		return nil, fmt.Errorf("the mask has 16 bits and values above 255; wanted the number of a class in each pixel")
	}
	to := make([]uint8, len(values))
	for i, v := range values {
		to[i] = uint8(v) // both bytes of a scaled value are equal
	}
	return to, nil
}
