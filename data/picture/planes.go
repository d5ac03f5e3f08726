package picture

import (
	"fmt"
	"image"
	"image/color"
)

type value interface{ uint8 | uint16 }

// luma returns the ITU-R 601 luma of three components.
func luma[T value](r, g, b T) T {
	return T((19595*uint64(r) + 38470*uint64(g) + 7471*uint64(b) + 1<<15) >> 16)
}

// planes returns img as planes of 1 or 3 channels; 0 means as many as it needs.
func planes(img image.Image, channels int) *Image {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	m := &Image{Width: w, Height: h}
	switch src := img.(type) {
	case *image.Gray:
		if src.Rect.Min == (image.Point{}) && src.Stride == w {
			// The JPEG decoder of the standard library returns whole blocks of 8
			// rows.
			m.Pix8 = src.Pix[: w*h : w*h]
		} else {
			m.Pix8 = make([]uint8, 0, w*h)
			for y := range h {
				m.Pix8 = append(m.Pix8, src.Pix[y*src.Stride:][:w]...)
			}
		}
		m.Pix8 = repeated(m, m.Pix8, channels)
	case *image.Gray16:
		m.Pix16 = make([]uint16, w*h)
		for i := range m.Pix16 {
			p := src.Pix[i/w*src.Stride+2*(i%w):][:2]
			m.Pix16[i] = uint16(p[0])<<8 | uint16(p[1])
		}
		m.Pix16 = repeated(m, m.Pix16, channels)
	case *image.NRGBA:
		m.Pix8 = split(m, channels, rgb8(src.Pix, src.Stride))
	case *image.RGBA: // from the PNG decoder, for images without transparency
		m.Pix8 = split(m, channels, rgb8(src.Pix, src.Stride))
	case *image.NRGBA64:
		m.Pix16 = split(m, channels, rgb16(src.Pix, src.Stride))
	case *image.RGBA64: // without transparency
		m.Pix16 = split(m, channels, rgb16(src.Pix, src.Stride))
	case *image.Paletted:
		var table [256]color.NRGBA
		for i, c := range src.Palette {
			table[i] = color.NRGBAModel.Convert(c).(color.NRGBA)
		}
		m.Pix8 = split(m, channels, func(x, y int) (uint8, uint8, uint8) {
			c := table[src.Pix[y*src.Stride+x]]
			return c.R, c.G, c.B
		})
	default:
		m.Pix8 = split(m, channels, func(x, y int) (uint8, uint8, uint8) {
			c := color.NRGBAModel.Convert(img.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
			return c.R, c.G, c.B
		})
	}
	return m
}

func rgb8(pix []uint8, stride int) func(x, y int) (r, g, b uint8) {
	return func(x, y int) (r, g, b uint8) {
		p := pix[y*stride+4*x:][:3]
		return p[0], p[1], p[2]
	}
}

func rgb16(pix []uint8, stride int) func(x, y int) (r, g, b uint16) {
	return func(x, y int) (r, g, b uint16) {
		p := pix[y*stride+8*x:][:6]
		return uint16(p[0])<<8 | uint16(p[1]), uint16(p[2])<<8 | uint16(p[3]), uint16(p[4])<<8 | uint16(p[5])
	}
}

// split returns the planes of the colours, or one plane if all pixels are grey,
// and sets the number of channels of m.
func split[T value](m *Image, channels int, at func(x, y int) (r, g, b T)) []T {
	w, h := m.Width, m.Height
	coloured := false
	for y := 0; y < h && !coloured; y++ {
		for x := 0; x < w && !coloured; x++ {
			r, g, b := at(x, y)
			coloured = r != g || g != b
		}
	}
	n := w * h
	if !coloured || channels == 1 {
		pix := make([]T, 0, n)
		for y := range h {
			for x := range w {
				pix = append(pix, luma(at(x, y)))
			}
		}
		m.Faded = coloured
		return repeated(m, pix, channels)
	}
	m.Channels = 3
	pix := make([]T, 3*n)
	for y := range h {
		for x := range w {
			i := y*w + x
			pix[i], pix[n+i], pix[2*n+i] = at(x, y)
		}
	}
	return pix
}

// repeated returns the plane once for each channel.
func repeated[T value](m *Image, plane []T, channels int) []T {
	m.Channels = max(channels, 1)
	if m.Channels == 1 {
		return plane
	}
	pix := make([]T, 0, m.Channels*len(plane))
	for range m.Channels {
		pix = append(pix, plane...)
	}
	return pix
}

// Repeat returns an image of one channel as an image of several equal channels.
func (m *Image) Repeat(channels int) *Image {
	to := *m
	if m.Channels == 1 && channels > 1 {
		if m.Pix16 != nil {
			to.Pix16 = repeated(&to, m.Pix16, channels)
		} else {
			to.Pix8 = repeated(&to, m.Pix8, channels)
		}
	}
	return &to
}

// Picture returns the image as an image of the standard library, for example to
// encode it. It panics if the image does not have one channel or three.
func (m *Image) Picture() image.Image {
	r := image.Rect(0, 0, m.Width, m.Height)
	switch n := m.Width * m.Height; {
	case m.Channels == 1 && m.Pix16 == nil:
		return m.Gray(false)
	case m.Channels == 1:
		img := image.NewGray16(r)
		for i, v := range m.Pix16 {
			img.Pix[2*i], img.Pix[2*i+1] = uint8(v>>8), uint8(v)
		}
		return img
	case m.Channels == 3 && m.Pix16 == nil:
		img := image.NewNRGBA(r)
		for i := range n {
			copy(img.Pix[4*i:], []uint8{m.Pix8[i], m.Pix8[n+i], m.Pix8[2*n+i], 255})
		}
		return img
	case m.Channels == 3:
		img := image.NewNRGBA64(r)
		for i := range n {
			for c := range 3 {
				v := m.Pix16[c*n+i]
				img.Pix[8*i+2*c], img.Pix[8*i+2*c+1] = uint8(v>>8), uint8(v)
			}
			img.Pix[8*i+6], img.Pix[8*i+7] = 255, 255
		}
		return img
	}
	panic(fmt.Errorf("picture: Picture of an image of %d channels", m.Channels))
}

// Gray returns an image of one channel with 8 bits. It shares the values of an
// 8-bit image. Of 16 bits the lower byte is dropped, or with stretch the darkest
// value becomes 0 and the brightest 255. It panics if there are several channels.
func (m *Image) Gray(stretch bool) *image.Gray {
	if m.Channels != 1 {
		panic(fmt.Errorf("picture: Gray of an image of %d channels", m.Channels))
	}
	pix := m.Pix8
	if m.Pix16 != nil {
		pix = Bytes(m.Pix16, stretch)
	}
	return &image.Gray{Pix: pix, Stride: m.Width, Rect: image.Rect(0, 0, m.Width, m.Height)}
}

// Bytes converts values of 0 to 65535 to bytes: the lower byte is dropped, or
// with stretch the lowest value becomes 0 and the highest 255.
func Bytes(values []uint16, stretch bool) []uint8 {
	to := make([]uint8, len(values))
	if !stretch {
		for i, v := range values {
			to[i] = uint8(v >> 8)
		}
		return to
	}
	lo, hi := uint16(1<<16-1), uint16(0)
	for _, v := range values {
		lo, hi = min(lo, v), max(hi, v)
	}
	span := max(uint32(hi)-uint32(lo), 1)
	for i, v := range values {
		to[i] = uint8((uint32(v-lo)*255 + span/2) / span)
	}
	return to
}
