package rle

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// edges returns the pixels, counted in the given order, at which the mask
// begins (even places) and ends (odd places), ascending. A run that reaches the
// last pixel ends at w*h.
//
// It compares eight pixels at a time, because most pixels equal their
// neighbour.
func edges(pix []uint8, stride, w, h int, order Order) []int {
	if w == 0 || h == 0 {
		return nil
	}
	var e []int
	if order == ColumnMajor {
		e = columnEdges(pix, stride, w, h)
	} else {
		e = rowEdges(pix, stride, w, h)
	}
	if len(e)%2 == 1 {
		e = append(e, w*h)
	}
	return e
}

// An edge is a pixel that differs from the one above it, or, in row 0, from the
// bottom of the column before.
type edge struct{ x, y int32 }

// columnEdges compares whole rows, so that memory is read in sequence, and then
// sorts the edges by column.
func columnEdges(pix []uint8, stride, w, h int) []int {
	var found []edge // by row
	bottom := pix[(h-1)*stride:][:w]
	before := false
	for x, v := range pix[:w] {
		if (v != 0) != before {
			found = append(found, edge{int32(x), 0})
		}
		before = bottom[x] != 0
	}
	for y := 1; y < h; y++ {
		above, row := pix[(y-1)*stride:][:w], pix[y*stride:][:w]
		if bytes.Equal(above, row) {
			continue
		}
		x := 0
		for ; x+8 <= w; x += 8 {
			a, b := binary.LittleEndian.Uint64(above[x:]), binary.LittleEndian.Uint64(row[x:])
			if a == b {
				continue
			}
			for d := nonZero(a) ^ nonZero(b); d != 0; d &= d - 1 {
				found = append(found, edge{int32(x + bits.TrailingZeros64(d)/8), int32(y)})
			}
		}
		for ; x < w; x++ {
			if (above[x] != 0) != (row[x] != 0) {
				found = append(found, edge{int32(x), int32(y)})
			}
		}
	}
	if len(found) == 0 {
		return nil
	}

	// Counting sort by column; within a column the rows are in order already.
	next := make([]int, w+1)
	for _, f := range found {
		next[f.x+1]++
	}
	for x := range w {
		next[x+1] += next[x]
	}
	e := make([]int, len(found), len(found)+1)
	for _, f := range found {
		e[next[f.x]] = int(f.x)*h + int(f.y)
		next[f.x]++
	}
	return e
}

func rowEdges(pix []uint8, stride, w, h int) []int {
	var e []int
	before := uint64(0) // 0x80 if the previous pixel is mask
	var above []uint8   // the row above, if nothing begins or ends in it
	for y := range h {
		row := pix[y*stride:][:w]
		if above != nil && bytes.Equal(above, row) {
			continue
		}
		found := len(e)
		x := 0
		for ; x+8 <= w; x += 8 {
			m := nonZero(binary.LittleEndian.Uint64(row[x:]))
			for d := m ^ (m<<8 | before); d != 0; d &= d - 1 {
				e = append(e, y*w+x+bits.TrailingZeros64(d)/8)
			}
			before = m >> 56
		}
		for ; x < w; x++ {
			m := nonZero(uint64(row[x]))
			if m != before {
				e = append(e, y*w+x)
			}
			before = m
		}
		above = nil
		if len(e) == found {
			above = row
		}
	}
	return e
}

// nonZero returns 0x80 in every byte of v that is not 0, and 0 in the others.
func nonZero(v uint64) uint64 {
	const low7 = 0x7f7f7f7f7f7f7f7f
	return ((v&low7 + low7) | v) &^ low7
}
