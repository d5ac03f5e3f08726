// Package clahe equalizes the contrast of grey images by contrast limited
// adaptive histogram equalization. For every image size the result equals that
// of scikit-image 0.19.3 to the last bit.
//
// The image is cut into tiles, by default an eighth of each side. Every tile
// has its own mapping of grey levels: the cumulative histogram of its pixels,
// in which bins are cut off at a limit and the excess is spread over the other
// bins. The value of a pixel is the bilinear mean of the mappings of the four
// nearest tiles. The result is stretched to [0, 1].
//
// As in scikit-image, values are computed on a 14-bit scale, [0, 16383], on
// which the mappings and their means are truncated to whole numbers. The
// package does the same arithmetic in the same order.
//
// Sources: K. Zuiderveld, "Contrast Limited Adaptive Histogram Equalization",
// Graphics Gems IV (1994); scikit-image 0.19.3, exposure.equalize_adapthist.
package clahe

import (
	"fmt"
	"image"
	"math"
)

const (
	top  = 1<<14 - 1 // the highest level of the inner scale
	grey = 256       // grey values of the input

	maxKernel = 1 << 14
)

// Options are the options of an Equalizer. The zero value means the defaults of
// scikit-image.
type Options struct {
	// KernelRows and KernelCols are the size of a tile in pixels, at most
	// 16384; 0 means an eighth of the rows or columns of the image, but at
	// least 1.
	KernelRows, KernelCols int

	// ClipLimit is the highest share of a tile's pixels that one bin may hold,
	// in (0, 1]. 0 means 0.01; 1 means no limit.
	ClipLimit float64

	// Bins is the number of histogram bins, up to 16384; 0 means 256.
	Bins int
}

// An Equalizer equalizes one image after another and reuses its buffers. It
// must not be used by several goroutines at once. The zero value has the
// default options.
type Equalizer struct {
	opt Options

	levels   []uint16        // the result on the inner scale, rows*cols
	lo, hi   uint16          // the lowest and the highest level
	maps     [][grey]float64 // per tile: the level of each grey value
	hist     []int           // one tile's histogram over bins
	bin      [grey]uint16    // the bin of each grey value
	rowAt    []int           // for each row of the padded image, the row of the image
	colAt    []int
	weights  []float64 // the four weights of each column of a block, in one row
	toByte   [top + 1]uint8
	rows     int
	cols     int
	kr, kc   int // tile size
	nr, nc   int // tiles down and across
	colShare []float64
}

// New returns an Equalizer; nil means the default options. It returns an error
// if an option is out of range.
func New(opt *Options) (*Equalizer, error) {
	if opt == nil {
		return &Equalizer{}, nil
	}
	switch o := *opt; {
	case o.KernelRows < 0 || o.KernelCols < 0 || o.KernelRows > maxKernel || o.KernelCols > maxKernel:
		return nil, fmt.Errorf("clahe: tiles of %dx%d pixels; wanted sides of 1 to %d, or 0 for an eighth of the image", o.KernelRows, o.KernelCols, maxKernel)
	case !(o.ClipLimit >= 0 && o.ClipLimit <= 1):
		return nil, fmt.Errorf("clahe: clip limit %v; wanted a share in [0, 1]", o.ClipLimit)
	case o.Bins < 0 || o.Bins > top+1:
		return nil, fmt.Errorf("clahe: %d bins; wanted 1 to %d, or 0 for 256", o.Bins, top+1)
	}
	return &Equalizer{opt: *opt}, nil
}

// Equalize returns img with its contrast equalized with the default options, as
// row-major values in [0, 1]. The highest value is 1 and the lowest 0. An image
// of one grey value becomes all 0 or all 1; an empty image gives an empty
// slice.
//
// It returns an error if Pix is too short for the size of the image.
func Equalize(img *image.Gray) ([]float64, error) {
	var e Equalizer
	return e.Float64s(nil, img)
}

// Float64s is [Equalize] with the options of the Equalizer. The values are
// written to dst if it has the capacity, else to a new slice.
func (e *Equalizer) Float64s(dst []float64, img *image.Gray) ([]float64, error) {
	if err := e.run(img); err != nil {
		return nil, err
	}
	if cap(dst) < len(e.levels) {
		dst = make([]float64, len(e.levels))
	}
	dst = dst[:len(e.levels)]
	if e.lo == e.hi {
		for i, v := range e.levels {
			dst[i] = float64(min(v, 1))
		}
		return dst, nil
	}
	lo, span := float64(e.lo), float64(e.hi)-float64(e.lo)
	for i, v := range e.levels {
		dst[i] = (float64(v) - lo) / span
	}
	return dst, nil
}

// Gray equalizes img to bytes: the values of [Equalize] times 255, truncated.
// The statistics are those of the values before they become bytes. The bytes
// are written to dst if it has the size of img, else to a new image. dst may be
// nil, and it may be img. Errors are those of Equalize.
func (e *Equalizer) Gray(dst, img *image.Gray) (*image.Gray, Stats, error) {
	if err := e.run(img); err != nil {
		return nil, Stats{}, err
	}
	if dst == nil || dst.Rect.Size() != img.Rect.Size() || !whole(dst) {
		dst = image.NewGray(image.Rect(0, 0, e.cols, e.rows))
	}
	if len(e.levels) == 0 {
		return dst, Stats{}, nil
	}
	lo, span := float64(e.lo), float64(e.hi)-float64(e.lo)
	if span == 0 { // all levels are equal: 0 stays 0, any other level becomes 1
		lo, span = 0, max(lo, 1)
	}
	for v := int(e.lo); v <= int(e.hi); v++ {
		e.toByte[v] = uint8((float64(v) - lo) / span * 255)
	}
	first := uint64(lo)
	var sum, sumSq uint64 // sums of whole numbers below 2^14: exact for 2^36 pixels
	for y := range e.rows {
		from := e.levels[y*e.cols:][:e.cols]
		to := dst.Pix[y*dst.Stride:][:e.cols]
		for x, v := range from {
			v &= top
			to[x] = e.toByte[v]
			d := uint64(v) - first
			sum += d
			sumSq += d * d
		}
	}
	return dst, Stats{
		N:     int64(len(e.levels)),
		Sum:   float64(sum) / span,
		SumSq: float64(sumSq) / (span * span),
	}, nil
}

// run equalizes img into levels, lo and hi.
func (e *Equalizer) run(img *image.Gray) error {
	e.rows, e.cols = img.Rect.Dy(), img.Rect.Dx()
	if !img.Rect.Empty() && !whole(img) {
		return fmt.Errorf("clahe: an image of %dx%d pixels, %d from row to row, has %d values", e.cols, e.rows, img.Stride, len(img.Pix))
	}
	if img.Rect.Empty() {
		e.rows, e.cols = 0, 0
	}
	n := e.rows * e.cols
	if cap(e.levels) < n {
		e.levels = make([]uint16, n)
	}
	e.levels = e.levels[:n]
	if n == 0 {
		return nil
	}
	e.layout()
	bins := e.opt.Bins
	if bins == 0 {
		bins = 256
	}
	e.quantize(img, bins)
	e.mapTiles(img, bins)
	e.interpolate(img)
	return nil
}

// whole returns whether Pix is long enough for the size of the image.
func whole(img *image.Gray) bool {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	return img.Stride >= w && len(img.Pix) >= w && h-1 <= (len(img.Pix)-w)/img.Stride
}

// layout computes the size and number of tiles, and which rows and columns of
// the image the padding shows. The image is mirrored about its edge pixels: by
// half a tile before the image, and after it by what completes the last tile
// plus half a tile.
func (e *Equalizer) layout() {
	e.kr, e.kc = e.opt.KernelRows, e.opt.KernelCols
	if e.kr == 0 {
		e.kr = max(e.rows/8, 1)
	}
	if e.kc == 0 {
		e.kc = max(e.cols/8, 1)
	}
	e.nr = (e.rows + e.kr - 1) / e.kr
	e.nc = (e.cols + e.kc - 1) / e.kc
	e.rowAt = mirror(e.rowAt[:0], e.rows, e.nr*e.kr)
	e.colAt = mirror(e.colAt[:0], e.cols, e.nc*e.kc)
}

// mirror appends, for each position from 0 to n-1 of a line of size elements
// that is reflected about its end elements, the index of the element there.
func mirror(at []int, size, n int) []int {
	period := max(2*(size-1), 1)
	for i := range n {
		i %= period
		if i >= size {
			i = period - i
		}
		at = append(at, i)
	}
	return at
}

// quantize finds the bin of each grey value: stretched from the image's range to
// the inner scale, rounded half to even, divided by the bin size.
func (e *Equalizer) quantize(img *image.Gray, bins int) {
	lo, hi := uint8(255), uint8(0)
	for y := range e.rows {
		for _, v := range img.Pix[y*img.Stride:][:e.cols] {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	binSize := 1 + (top+1)/bins
	for v := range e.bin {
		u := float64(v) * 257 // 8 to 16 bits
		if lo == hi {
			u = min(u, top)
		} else {
			first, last := float64(lo)*257, float64(hi)*257
			u = (u - first) / (last - first) * top
		}
		// Grey values outside the image's range do not occur, but need a valid
		// bin.
		level := min(max(math.RoundToEven(u), 0), top)
		e.bin[v] = uint16(int(level) / binSize)
	}
}
