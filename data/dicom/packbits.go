package dicom

import "encoding/binary"

// packbits decodes a frame of RLE Lossless (DICOM PS3.5, annex G). base is the
// offset of the frame in the file, or -1.
func (s *shape) packbits(b []byte, base int) ([]byte, error) {
	px, word := s.rows*s.columns, max(s.allocated, 8)/8
	n := s.samples * word
	segments, err := split(b, base, n)
	if err != nil {
		return nil, err
	}
	for i, seg := range segments { // nothing is allocated before all segments are checked
		if got := unpacked(seg); got < px {
			return nil, broken(base, "RLE: segment %d of the frame holds %d bytes, want %d", i, got, px)
		}
	}
	out := make([]byte, px*n)
	for i, seg := range segments {
		sample, high := i/word, i%word
		unpack(out[sample*word+word-1-high:], n, px, seg)
	}
	return out, nil
}

// split returns the n segments of run-length coded bytes in a frame: one for
// each byte of each sample, the most significant byte first.
func split(b []byte, base, n int) ([][]byte, error) {
	le := binary.LittleEndian
	if len(b) < 64 {
		return nil, broken(base, "RLE: frame of %d bytes, want a header of 64", len(b))
	}
	if got := le.Uint32(b); int64(got) != int64(n) {
		return nil, broken(base, "RLE: frame of %d segments, want %d", got, n)
	}
	segments := make([][]byte, n)
	for i := range segments {
		from, to := int64(le.Uint32(b[4+4*i:])), int64(len(b))
		if i+1 < n {
			to = int64(le.Uint32(b[8+4*i:]))
		}
		if from < 64 || from > to || to > int64(len(b)) {
			return nil, broken(base, "RLE: segment %d from %d to %d of a frame of %d bytes", i, from, to, len(b))
		}
		segments[i] = b[from:to]
	}
	return segments, nil
}

// unpacked returns the number of bytes that the runs in src give.
func unpacked(src []byte) int {
	n := 0
	for len(src) > 1 {
		c := int(int8(src[0]))
		switch {
		case c >= 0:
			k := min(c+1, len(src)-1)
			n += k
			src = src[1+k:]
		case c > -128:
			n += 1 - c
			src = src[2:]
		default:
			src = src[1:]
		}
	}
	return n
}

// unpack writes the first px bytes of the runs in src to dst, step apart.
func unpack(dst []byte, step, px int, src []byte) {
	for n := 0; n < px; {
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
		case c > -128:
			v := src[0]
			src = src[1:]
			for range min(1-c, px-n) {
				dst[n*step] = v
				n++
			}
		}
	}
}
