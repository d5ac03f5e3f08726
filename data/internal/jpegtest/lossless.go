// Package jpegtest encodes JPEG streams for tests, with processes for which Go
// has no encoder.
package jpegtest

// Markers (T.81 table B.1).
const (
	sof3 = 0xC3
	dht  = 0xC4
	rst0 = 0xD0
	soi  = 0xD8
	eoi  = 0xD9
	sos  = 0xDA
	dri  = 0xDD
)

// Lossless encodes h rows of w pixels with n components with process 14. It uses
// one Huffman table, in which each category from 0 to 16 has a code of five bits.
// A restart marker follows every restartRows rows, unless that is 0.
func Lossless(pix []uint16, w, h, n, precision, predictor, pt, restartRows int) []byte {
	b := []byte{0xFF, soi}
	segment := func(m byte, s ...byte) {
		b = append(append(b, 0xFF, m, byte((len(s)+2)>>8), byte(len(s)+2)), s...)
	}
	table := make([]byte, 17, 34)
	table[5] = 17
	for s := range 17 {
		table = append(table, byte(s))
	}
	segment(dht, table...)
	frame := []byte{byte(precision), byte(h >> 8), byte(h), byte(w >> 8), byte(w), byte(n)}
	scan := []byte{byte(n)}
	for c := range n {
		frame = append(frame, byte(c+1), 0x11, 0)
		scan = append(scan, byte(c+1), 0)
	}
	segment(sof3, frame...)
	if restartRows > 0 {
		segment(dri, byte(restartRows*w>>8), byte(restartRows*w))
	}
	segment(sos, append(scan, byte(predictor), 0, byte(pt))...)

	acc, bits := uint64(0), 0
	put := func(v uint64, k int) {
		acc, bits = acc<<k|v, bits+k
		for ; bits >= 8; bits -= 8 {
			v := byte(acc >> (bits - 8))
			if b = append(b, v); v == 0xFF {
				b = append(b, 0)
			}
		}
	}
	flush := func() {
		if bits > 0 {
			put(1<<(8-bits)-1, 8-bits)
		}
	}
	at := func(x, y, c int) int { return int(pix[(y*w+x)*n+c]) >> pt }
	for y := range h {
		first := y == 0
		if restartRows > 0 && y%restartRows == 0 && y > 0 {
			flush()
			b = append(b, 0xFF, rst0+byte((y/restartRows-1)%8))
			first = true
		}
		for x := range w {
			for c := range n {
				var p int
				switch {
				case first && x == 0:
					p = 1 << (precision - pt - 1)
				case first:
					p = at(x-1, y, c)
				case x == 0:
					p = at(x, y-1, c)
				default:
					l, u, ul := at(x-1, y, c), at(x, y-1, c), at(x-1, y-1, c)
					p = []int{l, u, ul, l + u - ul, l + (u-ul)>>1, u + (l-ul)>>1, (l + u) / 2}[predictor-1]
				}
				d := int(int16(at(x, y, c) - p))
				if d == -32768 {
					put(16, 5)
					continue
				}
				s := 0
				for m := max(d, -d); m > 0; m >>= 1 {
					s++
				}
				put(uint64(s), 5)
				if d < 0 {
					d += 1<<s - 1
				}
				put(uint64(d), s)
			}
		}
	}
	flush()
	return append(b, 0xFF, eoi)
}
