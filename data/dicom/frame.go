package dicom

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/hcunet/hcunet/data/internal/jpeg"
)

// frame decodes frame i to samples in the layout of the reference decoders:
// row-major, the samples of a pixel together, little endian, one byte per
// sample for 1 and 8 bits allocated, and in the colour space of the file.
func (st *study) frame(i, maxPixels int) ([]byte, error) {
	s := st.shape
	if st.syntax.native() {
		return st.nativeFrame(i)
	}
	if !st.decodable() {
		return nil, &UnsupportedError{Syntax: st.syntax}
	}
	data, at, err := st.encapsulated(i)
	if err != nil {
		return nil, err
	}
	switch st.syntax {
	case JPEGBaseline, JPEGExtended, JPEGSpectral, JPEGProgressive, JPEGLossless, JPEGLosslessSV1,
		JPEGLSLossless, JPEGLSNearLossless:
		pix, err := st.jpeg(data, maxPixels)
		return pix, locate(err, at, st.syntax)
	case RLELossless:
		return s.packbits(data, at)
	}
	return st.registered(data, at)
}

// decodable reports whether there is a decoder for the syntax.
func (st *study) decodable() bool {
	switch st.syntax {
	case JPEGBaseline, JPEGExtended, JPEGSpectral, JPEGProgressive, JPEGLossless, JPEGLosslessSV1,
		JPEGLSLossless, JPEGLSNearLossless, RLELossless:
		return true
	}
	_, ok := decoders.Load(st.syntax)
	return ok || st.syntax.native()
}

// nativeFrame returns frame i of uncompressed pixels.
func (st *study) nativeFrame(i int) ([]byte, error) {
	s, v := st.shape, st.native
	px := s.rows * s.columns
	bits := px * s.samples * s.allocated
	if s.photometric == "YBR_FULL_422" {
		bits = px * 2 * s.allocated
	}
	// Frames follow each other without padding, also with one bit per pixel.
	if s.frames > v.n*8/bits {
		return nil, broken(v.off, "pixel data have %d bytes, %d frames of %dx%d with %d samples of %d bits need %d each",
			v.n, s.frames, s.columns, s.rows, s.samples, s.allocated, (bits+7)/8)
	}
	if need := (s.frames*bits + 7) / 8; st.bare && v.n > need+1 {
		return nil, broken(v.off, "pixel data have %d bytes, %d are needed, and there is no meta information that says how they are coded", v.n, need)
	}
	all := st.stream[v.off : v.off+v.n]
	if st.bigOW && s.allocated <= 8 {
		all = swap16(all)
	}
	if s.allocated == 1 {
		out := make([]byte, px)
		for k := range out {
			bit := i*px + k
			out[k] = all[bit/8] >> (bit % 8) & 1
		}
		return out, nil
	}
	out := bytes.Clone(all[i*bits/8 : (i+1)*bits/8])
	if st.syntax == ExplicitBigEndian && s.allocated > 8 {
		reverse(out, s.allocated/8)
	}
	switch {
	case s.photometric == "YBR_FULL_422":
		out = s.widen422(out)
	case s.planar && s.samples == 3:
		out = interleave(out, s.allocated/8)
	}
	return out, nil
}

// reverse reverses the bytes of each word of b.
func reverse(b []byte, word int) {
	for i := 0; i+word <= len(b); i += word {
		slices.Reverse(b[i : i+word])
	}
}

// interleave turns RRR GGG BBB into RGB RGB RGB.
func interleave(b []byte, word int) []byte {
	out := make([]byte, len(b))
	n := len(b) / 3 / word
	for c := range 3 {
		for k := range n {
			copy(out[(k*3+c)*word:(k*3+c+1)*word], b[(c*n+k)*word:])
		}
	}
	return out
}

// widen422 turns Y Y Cb Cr into Y Cb Cr Y Cb Cr.
func (s *shape) widen422(b []byte) []byte {
	word := s.allocated / 8
	out := make([]byte, 0, s.bytes())
	for ; len(b) >= 4*word; b = b[4*word:] {
		for k := range 2 {
			out = append(out, b[k*word:(k+1)*word]...)
			out = append(out, b[2*word:4*word]...)
		}
	}
	return append(out, make([]byte, s.bytes()-len(out))...)
}

// encapsulated returns the coded bytes of frame i and their offset in the file,
// or -1 if they are joined from several fragments.
func (st *study) encapsulated(i int) ([]byte, int, error) {
	parts, err := st.parts(i)
	if err != nil {
		return nil, 0, err
	}
	if len(parts) == 1 {
		p := parts[0]
		return st.stream[p.off : p.off+p.n], p.off, nil
	}
	var b []byte
	for _, p := range parts {
		b = append(b, st.stream[p.off:p.off+p.n]...)
	}
	return b, -1, nil
}

// parts returns the fragments of frame i, as the offset table says. Without an
// offset table each fragment is a frame, or a frame begins at each fragment
// with a start marker.
func (st *study) parts(i int) ([]span, error) {
	frames, all := st.shape.frames, st.fragments
	switch {
	case frames == 1:
		return all, nil
	case st.offsets.n == 4*frames:
		return st.partsByOffset(i)
	case len(all) == frames:
		return all[i : i+1], nil
	}
	var first []int
	for k, p := range all {
		b := st.stream[p.off : p.off+p.n]
		if bytes.HasPrefix(b, []byte("\xFF\xD8\xFF")) || bytes.HasPrefix(b, []byte("\xFF\x4F\xFF\x51")) {
			first = append(first, k)
		}
	}
	if len(first) != frames || first[0] != 0 {
		return nil, broken(st.offsets.off, "%d frames in %d fragments, of which %d begin with a start marker", frames, len(all), len(first))
	}
	return all[first[i]:append(first, len(all))[i+1]], nil
}

// partsByOffset returns the fragments of frame i, as the basic offset table
// says. Its entries count from the item of the first fragment.
func (st *study) partsByOffset(i int) ([]span, error) {
	t := st.stream[st.offsets.off : st.offsets.off+st.offsets.n]
	base := st.offsets.off + st.offsets.n
	from, to := int(binary.LittleEndian.Uint32(t[4*i:])), len(st.stream)
	if 4*i+4 < len(t) {
		to = int(binary.LittleEndian.Uint32(t[4*i+4:]))
	}
	var parts []span
	for k, p := range st.fragments {
		at := p.off - 8 - base
		if at == from {
			parts = st.fragments[k:k]
		}
		if parts != nil && at < to {
			parts = parts[:len(parts)+1]
		}
	}
	if len(parts) == 0 {
		return nil, broken(st.offsets.off+4*i, "the offset table puts frame %d at %d, where no fragment begins", i, from)
	}
	return parts, nil
}

// jpeg decodes a JPEG stream. Its frame header must match the header of the
// file.
func (st *study) jpeg(data []byte, maxPixels int) ([]byte, error) {
	s := st.shape
	img, err := jpeg.Decode(data, jpeg.Limits{
		Pixels: maxPixels, Width: s.columns, Height: s.rows, Components: s.samples, Precision: s.allocated, OpenEnd: true,
	})
	if err != nil {
		return nil, err
	}
	if img.Open {
		st.warn("the JPEG stream ends without its end marker; its pixels are complete")
	}
	if !img.Lossless && !s.signed && img.Precision > s.stored {
		clip(img.Pix8, 1<<s.stored-1)
		clip(img.Pix16, 1<<s.stored-1)
	}
	if s.allocated == 8 {
		return img.Pix8, nil
	}
	out := make([]byte, 0, s.bytes())
	word := s.allocated / 8
	put := func(v uint16) {
		out = append(out, byte(v), byte(v>>8))
		for range word - 2 {
			out = append(out, 0)
		}
	}
	for _, v := range img.Pix8 {
		put(uint16(v))
	}
	for _, v := range img.Pix16 {
		put(v)
	}
	return out, nil
}

// clip sets values that lossy coding has moved above white back to white.
// Masking them to the stored bits, as some readers do, would make 1024 of 10
// bits black.
func clip[T uint8 | uint16](pix []T, white T) {
	for i, v := range pix {
		pix[i] = min(v, white)
	}
}

// locate turns the error of a decoder into an error of this package with an
// offset in the file.
func locate(err error, at int, syntax Syntax) error {
	var format *jpeg.FormatError
	var unsupported jpeg.UnsupportedError
	var limit *jpeg.LimitError
	switch {
	case errors.As(err, &format):
		if at < 0 {
			return &FormatError{Offset: -1, Msg: "in the joined fragments: " + err.Error(), Err: err}
		}
		return &FormatError{Offset: int64(at + format.Offset), Msg: "jpeg: " + format.Msg, Err: err}
	case errors.As(err, &unsupported):
		return &UnsupportedError{syntax, "JPEG with " + string(unsupported)}
	case errors.As(err, &limit):
		return fmt.Errorf("dicom: %v (Options.MaxPixels): %w", limit, ErrLimit)
	}
	return err
}
