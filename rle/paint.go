package rle

import (
	"encoding/binary"
	"iter"
)

// paint writes 255 to the pixels of ascending runs that lie inside the image.
func paint(dst []uint8, w, h int, order Order, runs iter.Seq[Run]) {
	if order == RowMajor {
		for r := range runs {
			fill(dst, w, h, r, order)
		}
		return
	}
	p := columnPainter{dst: dst, w: w, h: h, from: h}
	for r := range runs {
		p.add(r)
	}
	p.flush()
}

// fill writes 255 to the pixels of one run, which lies inside the image.
func fill(dst []uint8, w, h int, r Run, order Order) {
	if order == RowMajor {
		row := dst[r.Start : r.Start+r.Length]
		for i := range row {
			row[i] = 255
		}
		return
	}
	x, y := r.Start/h, r.Start%h
	for left := r.Length; left > 0; x, y = x+1, 0 {
		n := min(left, h-y)
		for i := y*w + x; n > 0; n, left = n-1, left-1 {
			dst[i] = 255
			i += w
		}
	}
}

// A columnPainter draws ascending column-major runs into a row-major mask, eight
// columns at a time, because fill would jump by a row at each pixel and miss the
// cache each time. For each row it keeps one word with a byte per column, which
// marks where runs begin and end. The running exclusive or of these words down
// the rows is the mask.
type columnPainter struct {
	dst  []uint8
	w, h int

	block    int      // columns 8*block to 8*block+7
	flips    []uint64 // per row, 255 in a column's byte where its mask begins or ends
	from, to int      // rows with any mark
}

func (p *columnPainter) add(r Run) {
	if p.flips == nil {
		p.flips = make([]uint64, p.h+1)
	}
	x, y := r.Start/p.h, r.Start%p.h
	for left := r.Length; left > 0; x, y = x+1, 0 {
		n := min(left, p.h-y)
		if x/8 != p.block {
			p.flush()
			p.block = x / 8
		}
		column := uint64(255) << (x % 8 * 8)
		p.flips[y] ^= column
		p.flips[y+n] ^= column
		p.from, p.to = min(p.from, y), max(p.to, y+n)
		left -= n
	}
}

// flush draws the block of columns; call it after the last run.
func (p *columnPainter) flush() {
	if p.to == 0 {
		return
	}
	x := 8 * p.block
	mask := uint64(0)
	for y := p.from; y < p.to; y++ {
		mask ^= p.flips[y]
		p.flips[y] = 0
		if mask == 0 {
			continue
		}
		row := p.dst[y*p.w+x : (y+1)*p.w]
		if len(row) >= 8 {
			binary.LittleEndian.PutUint64(row, binary.LittleEndian.Uint64(row)|mask)
			continue
		}
		for i := range row { // the last columns, if the width is not a multiple of 8
			row[i] |= uint8(mask >> (8 * i))
		}
	}
	p.flips[p.to] = 0
	p.from, p.to = p.h, 0
}
