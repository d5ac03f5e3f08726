package dicom

import "encoding/binary"

// packbits decodes a frame of RLE Lossless (DICOM PS3.5, annex G): for each
// sample, most significant byte first, a segment of run-length coded bytes.
// base is the frame's place in the file, or -1.
func (s *shape) packbits(b []byte, base int) ([]byte, error) {
	fail := func(at int, format string, a ...any) ([]byte, error) {
		if base >= 0 {
			at += base
		}
		return nil, broken(at, "RLE: "+format, a...)
	}
	if len(b) < 64 {
		return fail(0, "frame of %d bytes, want a header of 64", len(b))
	}
	word := max(s.allocated, 8) / 8
	px, n := s.rows*s.columns, s.samples*word
	le := binary.LittleEndian
	if got := le.Uint32(b); int64(got) != int64(n) {
		return fail(0, "%d segments, want %d for %d samples of %d bits", got, n, s.samples, s.allocated)
	}
	if px*n > 64*len(b) { // two bytes code at most 128
		return fail(0, "%d bytes cannot hold %d of pixels", len(b), px*n)
	}
	out := make([]byte, px*n)
	for i := range n {
		from, to := int64(le.Uint32(b[4+4*i:])), int64(len(b))
		if i+1 < n {
			to = int64(le.Uint32(b[8+4*i:]))
		}
		if from < 64 || from > to || to > int64(len(b)) {
			return fail(4+4*i, "segment %d from %d to %d of %d bytes", i, from, to, len(b))
		}
		sample, high := i/word, i%word
		at := sample*word + word - 1 - high
		if got := unpack(out[at:], n, px, b[from:to]); got < px {
			return fail(int(to), "segment %d holds %d bytes, want %d", i, got, px)
		}
	}
	return out, nil
}

// unpack writes up to px bytes from the runs in src, step apart, and returns how
// many it wrote.
func unpack(dst []byte, step, px int, src []byte) int {
	n := 0
	for len(src) > 0 && n < px {
		c := int(int8(src[0]))
		src = src[1:]
		switch {
		case c >= 0:
			k := min(c+1, len(src), px-n)
			for _, v := range src[:k] {
				dst[n*step] = v
				n++
			}
			src = src[k:]
		case c > -128 && len(src) > 0:
			v := src[0]
			src = src[1:]
			for range min(1-c, px-n) {
				dst[n*step] = v
				n++
			}
		}
	}
	return n
}
