package resize

import (
	"image"
	"math"
)

// Mask resizes a mask with values 0 to 255 to w x h pixels, as the notebook's
// data preparation does: cv2.resize on float64, then rounding half to even to
// bytes. A pixel on the border of an object gets a value between 0 and 255: 64,
// 128 or 191 if 1024 becomes 256. The notebook counts only 255 as object. It
// returns an error if mask is empty or a side is below 1.
func Mask(mask *image.Gray, w, h int) (*image.Gray, error) {
	if err := checkImage(mask); err != nil {
		return nil, err
	}
	size := mask.Rect.Size()
	if err := check(size, w, h); err != nil {
		return nil, err
	}
	out := image.NewGray(image.Rect(0, 0, w, h))
	if k := size.X / w; size == image.Pt(k*w, k*h) {
		reduce(out, mask, k, halfEven)
		return out, nil
	}

	cols, rows := taps(size.X, w), taps(size.Y, h)
	inside := func(i, n int) int { return min(max(i, 0), n-1) }
	var lines [2]struct {
		y   int
		pix []float64
	}
	at := func(y int) []float64 {
		l := &lines[y&1]
		if l.pix == nil {
			l.y, l.pix = -1, make([]float64, w)
		}
		if l.y == y {
			return l.pix
		}
		l.y = y
		from := mask.Pix[y*mask.Stride:][:size.X]
		for x, t := range cols {
			if t.at < 0 || t.at+1 >= size.X {
				l.pix[x] = float64(from[inside(t.at, size.X)])
				continue
			}
			a, b := float64(from[t.at]), float64(from[t.at+1])
			l.pix[x] = float64(a*float64(t.fa)) + float64(b*float64(t.fb))
		}
		return l.pix
	}
	for y, t := range rows {
		a, b := at(inside(t.at, size.Y)), at(inside(t.at+1, size.Y))
		wa, wb := float64(t.fa), float64(t.fb)
		to := out.Pix[y*w:][:w]
		for x := range to {
			v := float64(a[x]*wa) + float64(b[x]*wb)
			to[x] = uint8(min(math.RoundToEven(v), 255))
		}
	}
	return out, nil
}
