// Package resize resizes grey images and masks bilinearly, with exactly the
// bytes of OpenCV's cv2.resize and its default interpolation, INTER_LINEAR.
//
// Pixel i of n covers [i, i+1) and is sampled at its centre, so an output centre
// lies at (i+0.5)*source/target - 0.5 in the source; beyond the outermost
// centres the edge pixel repeats. There is no smoothing before a reduction:
// only the two nearest pixels along each axis count, however large the step.
//
// Source: OpenCV 4.6.0, imgproc/src/resize.cpp.
package resize

import (
	"fmt"
	"image"
	"math"
)

const (
	fractionBits = 11 // of a weight: OpenCV's INTER_RESIZE_COEF_BITS
	one          = 1 << fractionBits
)

// Linear returns img at a size of w x h pixels, as cv2.resize does on uint8: the
// weights are rounded to 11 bits, and the two passes round and truncate as
// OpenCV's whole-number arithmetic does. An image that has the size already is
// copied. It fails if img is empty or a side is below 1.
func Linear(img *image.Gray, w, h int) (*image.Gray, error) {
	size := img.Rect.Size()
	if err := check(size, w, h); err != nil {
		return nil, err
	}
	out := image.NewGray(image.Rect(0, 0, w, h))
	switch {
	case size == out.Rect.Size():
		for y := range h {
			copy(out.Pix[y*w:][:w], img.Pix[y*img.Stride:])
		}
		return out, nil
	case size == image.Pt(2*w, 2*h): // the same bytes as below, and sooner
		for y := range h {
			above := img.Pix[2*y*img.Stride:][: 2*w : 2*w]
			below := img.Pix[(2*y+1)*img.Stride:][: 2*w : 2*w]
			for x := range w {
				sum := uint(above[2*x]) + uint(above[2*x+1]) + uint(below[2*x]) + uint(below[2*x+1])
				out.Pix[y*w+x] = uint8((sum + 2) >> 2)
			}
		}
		return out, nil
	}

	cols := taps(size.X, w, true)
	rows := taps(size.Y, h, false)
	var line [2][]int32 // two source rows, resized along x, times 2^11, without the last 4 bits
	at := [2]int{-1, -1}
	for i := range line {
		line[i] = make([]int32, w)
	}
	widen := func(y int) []int32 {
		l := line[y&1] // neighbours have different parity
		if at[y&1] != y {
			at[y&1] = y
			across(l, img.Pix[y*img.Stride:][:size.X], cols)
		}
		return l
	}
	for y, t := range rows {
		a, b := widen(t.a), widen(t.b)
		wa, wb := t.wa, t.wb
		to := out.Pix[y*w:][:w]
		a, b = a[:len(to)], b[:len(to)]
		for x := range to {
			to[x] = uint8((wa*a[x]>>16 + wb*b[x]>>16 + 2) >> 2)
		}
	}
	return out, nil
}

// across resizes one row; its values have 7 fraction bits.
func across(to []int32, from []uint8, cols []tap) {
	for x, t := range cols {
		to[x] = (int32(from[t.a])*t.wa + int32(from[t.b])*t.wb) >> 4
	}
}

// A tap says from which two source pixels an output pixel is mixed, and with
// which weights; fa and fb are the weights before rounding.
type tap struct {
	a, b   int
	wa, wb int32
	fa, fb float32
}

// taps returns the taps along one axis. Outside the outermost centres the edge
// pixel has the weight 1 if snap is set, as along x; along y it is both of the
// pixels mixed, which truncates differently.
func taps(source, target int, snap bool) []tap {
	t := make([]tap, target)
	scale := 1 / (float64(target) / float64(source)) // in OpenCV's order
	for i := range t {
		f := float32(float64((float64(i)+0.5)*scale) - 0.5)
		a := int(math.Floor(float64(f)))
		f -= float32(a)
		if snap && a < 0 {
			a, f = 0, 0
		}
		if snap && a >= source-1 {
			a, f = source-1, 0
		}
		t[i] = tap{
			a:  min(max(a, 0), source-1),
			b:  min(max(a+1, 0), source-1),
			wa: int32(math.RoundToEven(float64((1 - f) * one))),
			wb: int32(math.RoundToEven(float64(f * one))),
			fa: 1 - f,
			fb: f,
		}
	}
	return t
}

func check(source image.Point, w, h int) error {
	if source.X < 1 || source.Y < 1 {
		return fmt.Errorf("resize: the image is empty (%dx%d pixels)", source.X, source.Y)
	}
	if w < 1 || h < 1 || w > math.MaxInt32/h {
		return fmt.Errorf("resize: target of %dx%d pixels; wanted sides of at least 1 and fewer than 2^31 pixels", w, h)
	}
	return nil
}
