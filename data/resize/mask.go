package resize

import (
	"image"
	"math"
)

// Mask returns a mask, values 0 to 255, at a size of w x h pixels, as the
// notebook's data preparation makes them: cv2.resize on float64, then rounded to
// bytes, half to even. A pixel on the border of an object gets a value in
// between: 64, 128 or 191 where 1024 becomes 256. The notebook counts only 255
// as object. It fails if mask is empty or a side is below 1.
func Mask(mask *image.Gray, w, h int) (*image.Gray, error) {
	size := mask.Rect.Size()
	if err := check(size, w, h); err != nil {
		return nil, err
	}
	out := image.NewGray(image.Rect(0, 0, w, h))
	cols := taps(size.X, w, true)
	rows := taps(size.Y, h, false)
	var line [2][]float64
	at := [2]int{-1, -1}
	for i := range line {
		line[i] = make([]float64, w)
	}
	widen := func(y int) []float64 {
		l := line[y&1]
		if at[y&1] != y {
			at[y&1] = y
			from := mask.Pix[y*mask.Stride:][:size.X]
			for x, t := range cols {
				l[x] = float64(float64(from[t.a])*float64(t.fa)) + float64(float64(from[t.b])*float64(t.fb))
			}
		}
		return l
	}
	for y, t := range rows {
		a, b := widen(t.a), widen(t.b)
		wa, wb := float64(t.fa), float64(t.fb)
		to := out.Pix[y*w:][:w]
		for x := range to {
			v := float64(a[x]*wa) + float64(b[x]*wb)
			to[x] = uint8(min(math.RoundToEven(v), 255))
		}
	}
	return out, nil
}
