package jpeg

import (
	"bytes"
	"encoding/binary"
)

// pad is the number of zero bytes after the entropy data, so that eight bytes
// can always be loaded at once.
const pad = 8

// A bitReader reads an entropy-coded segment, from which the stuffed zeros have
// been removed. Past the end it returns zeros, and overrun reports it.
type bitReader struct {
	buf  []byte // entropy bytes, then pad zeros
	pos  int    // next byte to load
	acc  uint64 // unread bits, the next one in the highest bit
	n    uint   // how many bits of acc are valid
	size int    // entropy bytes in buf
}

// refill makes at least 56 bits valid.
func (r *bitReader) refill() {
	if r.pos+8 <= len(r.buf) {
		r.acc |= binary.BigEndian.Uint64(r.buf[r.pos:]) >> r.n
	}
	r.pos += int((63 - r.n) >> 3)
	r.n |= 56
}

// take returns the next k bits, k at most 16.
func (r *bitReader) take(k uint) int32 {
	if r.n < 32 {
		r.refill()
	}
	v := r.acc >> 1 >> (63 - k)
	r.acc <<= k
	r.n -= k
	return int32(v)
}

// used returns the number of bits read so far.
func (r *bitReader) used() int { return r.pos*8 - int(r.n) }

// overrun reports whether more bits were read than the segment holds.
func (r *bitReader) overrun() bool { return r.used() > r.size*8 }

// leftover reports whether whole bytes of the segment are unread.
func (r *bitReader) leftover() bool { return r.size*8-r.used() >= 8 }

// rest returns the whole bytes of the segment that are unread.
func (r *bitReader) rest() []byte { return r.buf[(r.used()+7)/8 : r.size] }

// reset starts reading the segment at the beginning of src. It returns the
// number of bytes of src that the segment occupies, stuffing included, so that
// src[n:] begins with the 0xFF of the next marker; fill bytes before it are
// skipped. ended is false if src ends without a marker.
func (r *bitReader) reset(src []byte) (n int, ended bool) {
	buf := r.buf[:0]
	if buf == nil {
		buf = make([]byte, 0, len(src)+pad)
	}
	for {
		i := bytes.IndexByte(src[n:], 0xFF)
		if i < 0 || n+i+1 >= len(src) {
			buf = append(buf, src[n:]...)
			n = len(src)
			break
		}
		next := src[n+i+1]
		if next == 0 {
			buf = append(buf, src[n:n+i+1]...)
			n += i + 2
			continue
		}
		buf = append(buf, src[n:n+i]...)
		n += i
		for next == 0xFF && n+2 < len(src) { // fill bytes, T.81 B.1.1.2
			n++
			next = src[n+1]
		}
		ended = true
		break
	}
	size := len(buf)
	buf = append(buf, make([]byte, pad)...)
	*r = bitReader{buf: buf, size: size}
	return n, ended
}
