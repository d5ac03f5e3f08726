package rle

import (
	"fmt"
	"image"
)

// Counts returns the lengths of the runs of a mask. Runs of background and of
// mask alternate, and the first one is background: its length is 0 if the first
// pixel is mask. The lengths sum to the number of pixels. With ColumnMajor this
// is the "counts" of an uncompressed COCO annotation, whose "size" is [height,
// width].
//
// Source: COCO data format, https://cocodataset.org/#format-data.
func Counts(m *image.Gray, order Order) []int {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	if w == 0 || h == 0 {
		return []int{0}
	}
	e := edges(m.Pix[m.PixOffset(m.Rect.Min.X, m.Rect.Min.Y):], m.Stride, w, h, order)
	if len(e) == 0 || e[len(e)-1] < w*h {
		e = append(e, w*h)
	}
	for i := len(e) - 1; i > 0; i-- {
		e[i] -= e[i-1]
	}
	return e
}

// DecodeCounts returns the mask of Counts, with the values 0 and 255. A count
// of 0 is allowed anywhere. It returns a *SyntaxError, whose Offset is an index
// into counts, if one is negative or they do not sum to the number of pixels;
// another error if the size is not positive or more than MaxPixels.
func DecodeCounts(counts []int, width, height int, order Order) (*image.Gray, error) {
	if err := checkSize(width, height); err != nil {
		return nil, err
	}
	at := 0
	for i, n := range counts {
		if n < 0 || n > width*height-at {
			return nil, &SyntaxError{Offset: i, Msg: fmt.Sprintf("count %d at pixel %d of %d; want 0 to %d", n, at, width*height, width*height-at)}
		}
		at += n
	}
	if at != width*height {
		return nil, &SyntaxError{Offset: len(counts), Msg: fmt.Sprintf("the counts sum to %d; a %dx%d image has %d pixels", at, width, height, width*height)}
	}
	m := image.NewGray(image.Rect(0, 0, width, height))
	paint(m.Pix, width, height, order, func(yield func(Run) bool) {
		at := 0
		for i, n := range counts {
			if i%2 == 1 && n > 0 && !yield(Run{at, n}) {
				return
			}
			at += n
		}
	})
	return m, nil
}
