// Package resize resizes grey images and masks, either bilinearly with exactly the
// result of OpenCV's cv2.resize with its default INTER_LINEAR, or by the nearest
// pixel as Pillow does. A [Geometry] says where a film lies in the image that was
// made of it, and turns masks of the image into masks of the film.
//
// Pixel i of n covers [i, i+1) and is sampled at its centre, so an output centre
// lies at (i+0.5)*source/target - 0.5 in the source; beyond the outermost
// centres the edge pixel repeats. A reduction does not smooth first: only the
// two nearest pixels along each axis count, however large the factor is.
//
// Source: OpenCV 4.6.0, imgproc/src/resize.cpp.
package resize

import (
	"fmt"
	"image"
	"math"
)

const (
	fractionBits = 11 // fraction bits of a weight: OpenCV's INTER_RESIZE_COEF_BITS
	one          = 1 << fractionBits
)

// Linear resizes img to w x h pixels, as cv2.resize does on uint8: the weights
// are rounded to 11 bits, and the two passes round and truncate like OpenCV's
// integer arithmetic. An image that already has the size is copied. It returns
// an error if img is empty or a side is below 1.
func Linear(img *image.Gray, w, h int) (*image.Gray, error) {
	if err := checkImage(img); err != nil {
		return nil, err
	}
	size := img.Rect.Size()
	if err := check(size, w, h); err != nil {
		return nil, err
	}
	out := image.NewGray(image.Rect(0, 0, w, h))
	if k := size.X / w; size == image.Pt(k*w, k*h) {
		reduce(out, img, k, halfUp)
		return out, nil
	}

	cols, rows := pairs(taps(size.X, w), size.X-1), taps(size.Y, h)
	var lines [2]line
	from := make([]uint8, size.X+1) // one more pixel, as the neighbour of the last one
	at := func(y int) []uint32 {
		l := &lines[y&1] // neighbouring rows have different parity
		if l.pix == nil {
			*l = line{y: -1, pix: make([]uint32, w)}
		}
		if l.y != y {
			l.y = y
			copy(from, img.Pix[y*img.Stride:][:size.X])
			across(l.pix, from, cols)
		}
		return l.pix
	}
	for y, t := range rows {
		a, b := at(max(t.at, 0)), at(min(t.at+1, size.Y-1))
		down(out.Pix[y*w:][:w], a, b, t.wa, t.wb)
	}
	return out, nil
}

// A line is row y of the source, resized along x: grey values times 2^7.
type line struct {
	y   int
	pix []uint32
}

// across resizes one row along x.
func across(to []uint32, from []uint8, cols []pair) {
	to = to[:len(cols)]
	for x, t := range cols {
		p := from[t.at : t.at+2 : t.at+2]
		to[x] = (uint32(p[0])*uint32(t.wa) + uint32(p[1])*uint32(t.wb)) >> 4
	}
}

// down mixes two lines into one output row.
func down(to []uint8, a, b []uint32, wa, wb uint32) {
	a, b = a[:len(to)], b[:len(to)]
	for x := range to {
		to[x] = uint8((a[x]*wa>>16 + b[x]*wb>>16 + 2) >> 2)
	}
}

// How reduce rounds a half.
const (
	halfEven = 0
	halfUp   = 1
)

// reduce divides both sides by k, to the size of out. It is faster than the
// general method and gives the same result: an output centre lies on a source
// pixel if k is odd, and otherwise midway between four.
func reduce(out, img *image.Gray, k int, half uint) {
	w := out.Rect.Dx()
	first := (k - 1) / 2
	for y := range out.Rect.Dy() {
		to := out.Pix[y*w:][:w]
		row := img.Pix[(y*k+first)*img.Stride:][:w*k]
		if k%2 == 1 {
			for x := range to {
				to[x] = row[x*k+first]
			}
			continue
		}
		next := img.Pix[(y*k+first+1)*img.Stride:][:w*k]
		for x, i := 0, first; x < len(to); x, i = x+1, i+k {
			a, b := row[i:i+2:i+2], next[i:i+2:i+2]
			sum := uint(a[0]) + uint(a[1]) + uint(b[0]) + uint(b[1])
			to[x] = uint8((sum + 1 + (sum>>2|half)&1) >> 2)
		}
	}
}

// A tap says that an output pixel is mixed from the source pixels at and at+1
// with the weights wa and wb; fa and fb are the weights before rounding. At the
// edges one of the two pixels lies outside. Along x the other one then has the
// weight 1; along y the other one is used twice, with both weights, which is
// truncated differently.
type tap struct {
	at     int
	wa, wb uint32
	fa, fb float32
}

// taps returns the taps along one axis.
func taps(source, target int) []tap {
	t := make([]tap, target)
	scale := 1 / (float64(target) / float64(source)) // in OpenCV's order
	for i := range t {
		f := float32(float64((float64(i)+0.5)*scale) - 0.5)
		at := int(math.Floor(float64(f)))
		f -= float32(at)
		t[i] = tap{
			at: at,
			wa: uint32(math.RoundToEven(float64((1 - f) * one))),
			wb: uint32(math.RoundToEven(float64(f * one))),
			fa: 1 - f,
			fb: f,
		}
	}
	return t
}

// A pair is a tap along x for bytes, with the pixels at and at+1.
type pair struct {
	at     uint32
	wa, wb uint16
}

// pairs returns the taps as pairs. If one pixel of a tap lies outside, the other
// one has the weight 1.
func pairs(taps []tap, last int) []pair {
	out := make([]pair, len(taps))
	for i, t := range taps {
		switch {
		case t.at < 0:
			out[i] = pair{0, one, 0}
		case t.at >= last:
			out[i] = pair{uint32(last), one, 0}
		default:
			out[i] = pair{uint32(t.at), uint16(t.wa), uint16(t.wb)}
		}
	}
	return out
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
