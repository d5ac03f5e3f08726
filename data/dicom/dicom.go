// Package dicom reads radiographs from DICOM files as grey images, and writes
// simple ones.
//
//	film, err := dicom.Open("1.dcm", nil)
//	img := film.Gray() // 8 bits, black is 0
//
// Files need not be trusted. Read first checks the structure of a file and
// compares every length with the bytes in the file. Only then are elements
// parsed, by github.com/suyashkumar/dicom, which gets only what was checked. Read
// allocates no more memory than the input, and the pixels that the input can
// code, justify. Broken, unsupported and too large files give different errors:
// *FormatError, *UnsupportedError, ErrLimit, ErrNoPixels, ErrFrame.
//
// Uncompressed (little endian, big endian, deflated), RLE, JPEG with 8 and 12 bits
// (baseline, extended, progressive), lossless JPEG and JPEG-LS are decoded in Go.
// JPEG 2000 needs package codec, imported for its side effect. docs/dicom.md in
// the repository lists what can be read.
//
// Sources: DICOM PS3.3, PS3.5, PS3.6, PS3.10; ITU-T T.81 and T.87.
package dicom

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
)

// Options are the options of Read. Nil means all defaults.
type Options struct {
	// Frame is the number of the frame to read in a multi-frame file, counted
	// from 0.
	Frame int

	// ApplyModality turns stored values into the units of the modality
	// (Hounsfield units, for example) by the rescale slope and intercept or the
	// modality LUT, if the file has them. See Film.Scale.
	ApplyModality bool

	// ApplyVOI applies the first VOI LUT or window of the file, so that the
	// pixels are what a viewer shows. It implies ApplyModality. Without a LUT
	// or window it has no effect.
	ApplyVOI bool

	// HeaderOnly does not read the pixels. The Film has everything else; its
	// Bits, Scale and Offset are those of unsigned stored pixels.
	HeaderOnly bool

	MaxBytes  int64 // largest file, also after inflating; 0 means 1 GiB
	MaxPixels int   // largest Rows*Columns; 0 means 1<<27
}

// Open reads the DICOM file at path. See Read.
func Open(path string, opt *Options) (*Film, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	film, err := Read(f, opt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return film, nil
}

// Read reads one film from r. It reads r to its end.
//
// Errors are those of r, *FormatError, *UnsupportedError, or wrap ErrLimit,
// ErrNoPixels or ErrFrame.
func Read(r io.Reader, opt *Options) (f *Film, err error) {
	o := opt.defaults()
	b, err := readAll(r, o.MaxBytes)
	if err != nil {
		return nil, err
	}
	defer func() { // a last safeguard: no file is known that needs it
		if p := recover(); p != nil {
			f, err = nil, &FormatError{Offset: -1, Msg: fmt.Sprintf("the file makes the reader panic: %v", p)}
		}
	}()
	return read(b, &o)
}

// defaults returns o with the defaults for limits of 0; o may be nil.
func (o *Options) defaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	d.MaxBytes = cmp.Or(d.MaxBytes, 1<<30)
	d.MaxPixels = cmp.Or(d.MaxPixels, 1<<27)
	return d
}

// readAll reads r to its end, at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	size := 0
	switch r := r.(type) {
	case interface{ Len() int }: // bytes.Reader, bytes.Buffer, strings.Reader
		size = r.Len()
	case *os.File:
		if fi, err := r.Stat(); err == nil && fi.Mode().IsRegular() {
			size = int(min(fi.Size(), limit))
		}
	}
	if int64(size) > limit {
		return nil, tooLarge(limit)
	}
	var b bytes.Buffer
	b.Grow(size + bytes.MinRead)
	limit = min(limit, math.MaxInt64-1)
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, tooLarge(limit)
	}
	return b.Bytes(), nil
}

func tooLarge(limit int64) error {
	return fmt.Errorf("dicom: the file has more than %d bytes (Options.MaxBytes): %w", limit, ErrLimit)
}

// A study is a file read up to its pixels.
type study struct {
	*layout
	head  *header
	shape *shape
}

// open checks and parses a whole file up to its pixels.
func open(file []byte, o *Options) (*study, error) {
	l, err := survey(file, o.MaxBytes)
	if err != nil {
		return nil, err
	}
	if !l.hasPixels {
		return nil, fmt.Errorf("dicom: %w in the file", ErrNoPixels)
	}
	h, err := l.parse()
	if err != nil {
		return nil, err
	}
	s, err := h.shape(l)
	if err != nil {
		return nil, err
	}
	if s.rows*s.columns > o.MaxPixels {
		return nil, fmt.Errorf("dicom: the image is %dx%d, more than %d pixels (Options.MaxPixels): %w",
			s.columns, s.rows, o.MaxPixels, ErrLimit)
	}
	return &study{l, h, s}, nil
}

// read does the work of Read on a whole file.
func read(file []byte, o *Options) (*Film, error) {
	st, err := open(file, o)
	if err != nil {
		return nil, err
	}
	f := st.film()
	if o.Frame < 0 || o.Frame >= st.shape.frames {
		return nil, fmt.Errorf("dicom: frame %d asked for, the file has %d, counted from 0: %w", o.Frame, st.shape.frames, ErrFrame)
	}
	f.Frame = o.Frame
	if f.Warnings = st.warnings; o.HeaderOnly {
		return f, nil
	}
	pix, err := st.frame(o.Frame, o.MaxPixels)
	if err != nil {
		return nil, err
	}
	if err := st.grey(f, pix, o); err != nil {
		return nil, err
	}
	f.Warnings = st.warnings
	return f, nil
}
