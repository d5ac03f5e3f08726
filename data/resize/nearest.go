package resize

import "image"

// Nearest returns m at a size of w x h pixels by taking the nearest pixel, as
// Pillow's NEAREST does, to the bit: a mask predicted at 256x256 goes to the
// 1024x1024 of the film as blocks of 4x4 and stays 0 and 255. It fails if m is
// empty or a side is below 1.
//
// The source coordinate is accumulated step by step as Pillow does, so that for
// factors that are not whole it can differ from floor((i+0.5)*s/d) in ties.
func Nearest(m *image.Gray, w, h int) (*image.Gray, error) {
	if err := checkImage(m); err != nil {
		return nil, err
	}
	if err := check(m.Rect.Size(), w, h); err != nil {
		return nil, err
	}
	return sampled(m, nearest(m.Rect.Dx(), w), nearest(m.Rect.Dy(), h)), nil
}

// sampled returns the pixels of m in the given columns and rows, counted from its
// corner.
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
