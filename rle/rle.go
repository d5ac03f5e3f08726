// Package rle turns segmentation masks into run-length strings and back, in the
// formats of the SIIM-ACR, TGS, Airbus and COCO data sets.
//
// A mask is an *image.Gray, or its bytes in row-major order; any pixel that is
// not 0 belongs to the mask, and decoding writes 255. A string is pairs of
// decimal numbers, "start length start length ...". Pixels are counted down the
// columns, from the leftmost column to the rightmost, or along the rows, from
// the top row to the bottom one.
//
// The zero Options are the format of the SIIM-ACR Pneumothorax Segmentation
// challenge: column-major, and a start is the number of pixels since the end of
// the previous run (for the first run, since pixel 0). The 4x3 mask
//
//	. . # .
//	. # # .
//	. # . .
//
// is "4 4" in this format: pixels 4 and 5 are the last two of column 1, pixels
// 6 and 7 the first two of column 2.
//
// Decoding what was encoded gives the same mask, in every format except
// [Options].Kernel, which keeps the errors of the original code.
package rle

import (
	"errors"
	"fmt"
	"image"
	"slices"
	"strconv"
	"strings"
)

// Order is the order in which pixels are counted.
type Order int

// Orders of pixels.
const (
	ColumnMajor Order = iota // down each column, columns from left to right
	RowMajor                 // along each row, rows from top to bottom
)

// Starts is the meaning of the first number of a pair.
type Starts int

// Meanings of a start.
const (
	Relative Starts = iota // pixels since the end of the previous run: SIIM-ACR
	FromOne                // number of the pixel, the first one being 1: TGS, Airbus
	FromZero               // number of the pixel, the first one being 0
)

// Empty is the text of an empty mask. Decoding always accepts both.
type Empty int

// Texts of an empty mask.
const (
	MinusOne Empty = iota // "-1": SIIM-ACR
	Blank                 // "": TGS, Airbus
)

// Options choose a format. A nil *Options means the zero value, the format of
// SIIM-ACR.
type Options struct {
	Order  Order  // default ColumnMajor
	Starts Starts // default Relative
	Empty  Empty  // default MinusOne

	// Kernel does what the challenge's own Python helper does, which the
	// notebook used. Encoding: only the value 255 is mask; a run that reaches
	// the last pixel is lost; and each change between two values other than 255
	// writes "-1 0" and restarts the counting of the gap. Decoding: a run is cut
	// where it leaves the image, and "-1 0" moves the position back by one.
	// Starts must be Relative. Order RowMajor is the helper as written; the
	// notebook gives it the transposed image, which is ColumnMajor.
	//
	// Source: mask_functions.py of the challenge, as the notebook imports it.
	Kernel bool
}

// The formats of some public data sets.
var (
	SIIM   = Options{}
	TGS    = Options{Starts: FromOne, Empty: Blank}
	Airbus = TGS
)

// MaxPixels is the largest size of an image that can be decoded, width times
// height.
const MaxPixels = 1 << 29

// A SyntaxError says what is wrong with a run-length string, and where.
type SyntaxError struct {
	Offset int // in bytes from the start of the string; for counts, the index
	Msg    string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("rle: at offset %d: %s", e.Offset, e.Msg)
}

// A Run is Length pixels of the mask that begin at pixel Start. Pixels are
// counted from 0, in the order of the Options that made the run.
type Run struct {
	Start, Length int
}

// Encode returns the runs of m as a string. A run goes on from the end of one
// column into the next (with RowMajor, of one row).
//
// It panics if opt is a combination that does not exist (see Options.Kernel).
func Encode(m *image.Gray, opt *Options) string {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	if w == 0 || h == 0 {
		return string(appendEmpty(nil, opt))
	}
	return string(appendRuns(nil, m.Pix[m.PixOffset(m.Rect.Min.X, m.Rect.Min.Y):], m.Stride, w, h, opt))
}

// EncodePixels is Encode for a mask given as its width*height bytes in
// row-major order, 0 or not 0. It panics if pix has another length.
func EncodePixels(pix []uint8, width, height int, opt *Options) string {
	return string(AppendPixels(nil, pix, width, height, opt))
}

// AppendPixels appends what EncodePixels returns to dst.
func AppendPixels(dst []byte, pix []uint8, width, height int, opt *Options) []byte {
	if err := checkPixels(pix, width, height); err != nil {
		panic(err)
	}
	return appendRuns(dst, pix, width, width, height, opt)
}

// Decode returns the mask of a string, with the values 0 and 255 and the corner
// at (0, 0). "-1" and "", with or without spaces around them, are an empty
// mask.
//
// It returns a *SyntaxError if s is not pairs of decimal numbers, or if a run
// is empty, starts before the end of the previous one, or leaves the image;
// another error if the size is not positive or more than MaxPixels.
func Decode(s string, width, height int, opt *Options) (*image.Gray, error) {
	if err := checkSize(width, height); err != nil {
		return nil, err
	}
	m := image.NewGray(image.Rect(0, 0, width, height))
	if err := DecodeInto(m.Pix, s, width, height, opt); err != nil {
		return nil, err
	}
	return m, nil
}

// DecodeInto writes 255 to the pixels of the runs of s and leaves the others as
// they are, so that several calls give the union of their strings. The mask has
// width*height bytes in row-major order. Errors are those of Decode; after an
// error dst may hold the runs before the wrong one.
func DecodeInto(dst []uint8, s string, width, height int, opt *Options) error {
	if err := checkSize(width, height); err != nil {
		return err
	}
	if err := checkPixels(dst, width, height); err != nil {
		return err
	}
	opt = opt.check()
	if opt.Kernel {
		return kernelDecode(dst, s, width, height, opt.Order)
	}
	p := parser{s: s, pixels: width * height, starts: opt.Starts}
	paint(dst, width, height, opt.Order, p.runs)
	return p.err
}

// Parse returns the runs of s for an image of that many pixels, without drawing
// them. Their lengths sum to the area of the mask. Errors are those of Decode.
// Parse panics if Options.Kernel is set.
func Parse(s string, pixels int, opt *Options) ([]Run, error) {
	if pixels <= 0 || pixels > MaxPixels {
		return nil, fmt.Errorf("rle: an image of %d pixels; want 1 to %d", pixels, MaxPixels)
	}
	opt = opt.check()
	if opt.Kernel {
		panic(errors.New("rle: Parse has no kernel mode"))
	}
	p := parser{s: s, pixels: pixels, starts: opt.Starts}
	runs := slices.Collect(p.runs)
	if p.err != nil {
		return nil, p.err
	}
	return runs, nil
}

// check returns opt, or the zero Options if opt is nil. It panics if no such
// format exists.
func (opt *Options) check() *Options {
	if opt == nil {
		return &Options{}
	}
	if opt.Order != ColumnMajor && opt.Order != RowMajor ||
		opt.Starts < Relative || opt.Starts > FromZero ||
		opt.Empty != MinusOne && opt.Empty != Blank ||
		opt.Kernel && opt.Starts != Relative {
		panic(fmt.Errorf("rle: no such format: %+v", *opt))
	}
	return opt
}

func checkSize(width, height int) error {
	if width <= 0 || height <= 0 || width > MaxPixels/height {
		return fmt.Errorf("rle: image size %dx%d; want both positive and at most %d pixels", width, height, MaxPixels)
	}
	return nil
}

func checkPixels(pix []uint8, width, height int) error {
	if width < 0 || height < 0 || len(pix) != width*height {
		return fmt.Errorf("rle: a mask of %d bytes is not %dx%d pixels", len(pix), width, height)
	}
	return nil
}

func appendEmpty(dst []byte, opt *Options) []byte {
	if opt.check().Empty == MinusOne {
		return append(dst, "-1"...)
	}
	return dst
}

// appendRuns appends the text of the mask whose row y starts at pix[y*stride].
func appendRuns(dst []byte, pix []uint8, stride, w, h int, opt *Options) []byte {
	opt = opt.check()
	before := len(dst)
	if opt.Kernel {
		dst = kernelAppend(dst, pix, stride, w, h, opt.Order)
	} else {
		e := edges(pix, stride, w, h, opt.Order)
		end := 0 // of the previous run
		for i := 0; i+1 < len(e); i += 2 {
			start, length := e[i], e[i+1]-e[i]
			switch opt.Starts {
			case Relative:
				start -= end
			case FromOne:
				start++
			}
			dst = appendPair(dst, start, length, len(dst) == before)
			end = e[i+1]
		}
	}
	if len(dst) == before {
		return appendEmpty(dst, opt)
	}
	return dst
}

func appendPair(dst []byte, start, length int, first bool) []byte {
	if !first {
		dst = append(dst, ' ')
	}
	dst = strconv.AppendInt(dst, int64(start), 10)
	dst = append(dst, ' ')
	return strconv.AppendInt(dst, int64(length), 10)
}

// A parser reads the runs of a string one by one.
type parser struct {
	s      string
	pixels int
	starts Starts

	i   int // next byte of s
	end int // of the previous run
	run Run
	err error
}

// runs yields the runs up to the end or the first error.
func (p *parser) runs(yield func(Run) bool) {
	for p.next() && yield(p.run) {
	}
}

// next reads one run into p.run; it returns false at the end and on an error.
func (p *parser) next() bool {
	if p.i == 0 && isEmpty(p.s) {
		return false
	}
	start, at, ok := p.number()
	if !ok {
		return false
	}
	length, lengthAt, ok := p.number()
	if !ok {
		return p.fail(at, "a start without a length; want pairs of numbers")
	}
	switch p.starts {
	case Relative:
		start += p.end
	case FromOne:
		start--
	}
	switch {
	case start < p.end && p.end == 0:
		return p.fail(at, "start 0; this format counts pixels from 1")
	case start < p.end:
		return p.fail(at, "run starts at pixel %d, before the end %d of the run before it (both counted from 0)", start, p.end)
	case length == 0:
		return p.fail(lengthAt, "a run of length 0")
	case start >= p.pixels:
		return p.fail(at, "run starts outside the image, which has %d pixels", p.pixels)
	case length > p.pixels-start:
		return p.fail(lengthAt, "run leaves the image: it starts at pixel %d of %d (counted from 0) and is longer than %d",
			start, p.pixels, p.pixels-start)
	}
	p.run = Run{start, length}
	p.end = start + length
	return true
}

// number reads a decimal number and returns it with the offset of its first
// digit. A value above 2*MaxPixels is returned as 2*MaxPixels: still too large
// for an image, and safe to add.
func (p *parser) number() (v, at int, ok bool) {
	for p.i < len(p.s) && isSpace(p.s[p.i]) {
		p.i++
	}
	at = p.i
	for ; p.i < len(p.s) && !isSpace(p.s[p.i]); p.i++ {
		c := p.s[p.i]
		if c < '0' || c > '9' {
			if c == '-' && p.i == at {
				p.fail(at, "a negative number; \"-1\" means an empty mask only when it stands alone")
			} else {
				p.fail(p.i, "unexpected character %q; want digits and spaces", c)
			}
			return 0, at, false
		}
		if v < 2*MaxPixels/10 {
			v = 10*v + int(c-'0')
		} else {
			v = 2 * MaxPixels
		}
	}
	return v, at, p.i > at
}

func (p *parser) fail(at int, format string, args ...any) bool {
	if p.err == nil {
		p.err = &SyntaxError{Offset: at, Msg: fmt.Sprintf(format, args...)}
	}
	return false
}

func isEmpty(s string) bool {
	s = strings.TrimFunc(s, func(r rune) bool { return r < 128 && isSpace(byte(r)) })
	return s == "" || s == "-1"
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
