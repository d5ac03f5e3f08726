package rle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// kernelAppend encodes as the challenge's helper does; see Options.Kernel. For a mask
// of 0 and 255 these are all runs but one that reaches the last pixel.
func kernelAppend(dst []byte, pix []uint8, stride, w, h int, order Order) []byte {
	if !onlyExtremes(pix, stride, w, h) {
		return kernelAppendGrey(dst, pix, stride, w, h, order)
	}
	e := edges(pix, stride, w, h, order)
	before, end := len(dst), 0 // end of the previous run
	for i := 0; i+1 < len(e) && e[i+1] < w*h; i += 2 {
		dst = appendPair(dst, e[i]-end, e[i+1]-e[i], len(dst) == before)
		end = e[i+1]
	}
	return dst
}

// onlyExtremes returns whether all pixels are 0 or 255.
func onlyExtremes(pix []uint8, stride, w, h int) bool {
	for y := range h {
		row := pix[y*stride:][:w]
		if y > 0 && bytes.Equal(row, pix[(y-1)*stride:][:w]) {
			continue
		}
		x := 0
		for ; x+8 <= w; x += 8 {
			v := binary.LittleEndian.Uint64(row[x:])
			if nonZero(v)>>7*255 != v {
				return false
			}
		}
		for ; x < w; x++ {
			if row[x] != 0 && row[x] != 255 {
				return false
			}
		}
	}
	return true
}

// kernelAppendGrey is the helper's loop, pixel by pixel.
func kernelAppendGrey(dst []byte, pix []uint8, stride, w, h int, order Order) []byte {
	outer, inner := w, h // columns, and pixels per column
	outerStep, innerStep := 1, stride
	if order == RowMajor {
		outer, inner = h, w
		outerStep, innerStep = stride, 1
	}

	var (
		last      uint8
		gap       int  // pixels since the last pair was written
		inRun     bool // only the value 255 begins a run
		run       = Run{-1, 0}
		untouched = len(dst)
	)
	for o := range outer {
		for i := range inner {
			v := pix[o*outerStep+i*innerStep]
			switch {
			case v == last:
				if inRun {
					run.Length++
				}
			case v == 255:
				inRun, run = true, Run{gap, 1}
			default: // a run ends, or one grey value follows another: both write a pair
				dst = appendPair(dst, run.Start, run.Length, len(dst) == untouched)
				inRun, run = false, Run{-1, 0}
				gap = 0
			}
			last = v
			gap++
		}
	}
	return dst
}

// kernelDecode decodes as the challenge's helper does; see Options.Kernel.
// There a run is a numpy slice: a bound below 0 counts from the end of the
// image, and the part of a run outside the image is cut.
func kernelDecode(dst []uint8, s string, w, h int, order Order) error {
	if isEmpty(s) {
		return nil
	}
	fields := strings.Fields(s)
	if len(fields)%2 == 1 {
		return &SyntaxError{Offset: len(s), Msg: "a start without a length; want pairs of numbers"}
	}
	n := w * h
	slice := func(bound int) int {
		if bound < 0 {
			bound += n
		}
		return min(max(bound, 0), n)
	}
	at, offset := 0, 0
	for i := 0; i < len(fields); i += 2 {
		var pair [2]int
		for j, field := range fields[i : i+2] {
			offset += strings.Index(s[offset:], field)
			v, err := strconv.ParseInt(field, 10, 32)
			if err != nil {
				return &SyntaxError{Offset: offset, Msg: fmt.Sprintf("%q is not a number of 32 bits", field)}
			}
			pair[j] = int(v)
			offset += len(field)
		}
		at += pair[0]
		if from, to := slice(at), slice(at+pair[1]); from < to {
			fill(dst, w, h, Run{from, to - from}, order)
		}
		at += pair[1]
	}
	return nil
}
