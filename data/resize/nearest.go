package resize

import "image"

// Nearest resizes m to w x h pixels. Each pixel takes the value of the nearest
// source pixel, exactly as in Pillow's NEAREST. Each pixel of a mask predicted
// at 256x256 becomes a block of 4x4 pixels of a 1024x1024 film, and the values
// stay 0 and 255. It returns an error if m is empty or a side is below 1.
//
// The source coordinate is accumulated step by step as in Pillow. So if the
// factor is not a whole number, ties can differ from floor((i+0.5)*s/d).
func Nearest(m *image.Gray, w, h int) (*image.Gray, error) {
	if err := checkImage(m); err != nil {
		return nil, err
	}
	if err := check(m.Rect.Size(), w, h); err != nil {
		return nil, err
	}
	return sampled(m, nearest(m.Rect.Dx(), w), nearest(m.Rect.Dy(), h)), nil
}

// sampled returns the pixels of m at the given columns and rows, counted from the
// corner of m.
func sampled(m *image.Gray, xs, ys []int) *image.Gray {
	w := len(xs)
	out := image.NewGray(image.Rect(0, 0, w, len(ys)))
	for y, from := range ys {
		row := out.Pix[y*w:][:w]
		if y > 0 && from == ys[y-1] {
			copy(row, out.Pix[(y-1)*w:])
			continue
		}
		pix := m.Pix[from*m.Stride:][:m.Rect.Dx()]
		for x, at := range xs {
			row[x] = pix[at]
		}
	}
	return out
}

// nearest returns, for each of d output pixels, its nearest one of s source
// pixels.
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
