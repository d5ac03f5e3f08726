package rle

import (
	"fmt"
	"image"
)

// Resize returns m at another size by taking the nearest pixel, as
// Pillow's NEAREST does, to the bit: a mask predicted at 256x256 goes to the
// 1024x1024 of the film as blocks of 4x4 and stays 0 and 255. It panics if a
// size is not positive or the mask has no pixels.
//
// The source coordinate is accumulated step by step as Pillow does, so that for
// factors that are not whole it can differ from floor((i+0.5)*s/d) in ties.
func Resize(m *image.Gray, width, height int) *image.Gray {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	if w <= 0 || h <= 0 || checkSize(width, height) != nil {
		panic(fmt.Errorf("rle: resize from %dx%d to %dx%d; want positive sizes", w, h, width, height))
	}
	out := image.NewGray(image.Rect(0, 0, width, height))
	xs, ys := nearest(w, width), nearest(h, height)
	for y := range height {
		row := out.Pix[y*width:][:width]
		if y > 0 && ys[y] == ys[y-1] {
			copy(row, out.Pix[(y-1)*width:])
			continue
		}
		from := m.Pix[m.PixOffset(m.Rect.Min.X, m.Rect.Min.Y+ys[y]):][:w]
		for x := range row {
			row[x] = from[xs[x]]
		}
	}
	return out
}

// nearest returns the source pixel of each of d pixels over s.
//
// Source: Pillow, src/libImaging/Geometry.c, ImagingScaleAffine.
func nearest(s, d int) []int {
	index := make([]int, d)
	step := float64(s) / float64(d)
	at := step * 0.5
	for i := range index {
		index[i] = min(int(at), s-1)
		at += step
	}
	return index
}
