package jpeg

import "encoding/binary"

// Fixed-point constants of the accurate integer inverse DCT: the eleven-multiply
// algorithm of Loeffler, Ligtenberg and Moschytz (ICASSP 1989) in 13 bits, as
// the Independent JPEG Group scales it. fNNNN is roughly NNNN/1000.
const (
	constBits = 13

	f0298 = 2446  // 0.298631336
	f0390 = 3196  // 0.390180644
	f0541 = 4433  // 0.541196100
	f0765 = 6270  // 0.765366865
	f0899 = 7373  // 0.899976223
	f1175 = 9633  // 1.175875602
	f1501 = 12299 // 1.501321110
	f1847 = 15137 // 1.847759065
	f1961 = 16069 // 1.961570560
	f2053 = 16819 // 2.053119869
	f2562 = 20995 // 2.562915447
	f3072 = 25172 // 3.072711026
)

// A block holds 64 dequantized coefficients in row-major order, two per word:
// the left one plus the right one times 1<<32. Adding or subtracting two such
// words, or multiplying one by a constant, does the same in both lanes as long
// as each lane stays within 32 bits. So the transform computes two columns, and
// then two rows, at once. A lane that overflows makes its neighbour wrong. The
// coefficients of a valid image do not overflow; for others the pixels do not
// matter.
type block [32]int64

// set stores the coefficient v at the row-major index at, where the value must
// be zero.
func (b *block) set(at uint8, v int32) {
	b[at>>1&31] += int64(v) << (at & 1 << 5 & 63)
}

// lanes returns the two numbers in a word.
func lanes(v int64) (left, right int32) {
	return int32(v), int32((v - int64(int32(v))) >> 32)
}

const both = 1 + 1<<32 // multiplied by a number, gives that number in both lanes

// even returns the four sums of the even part for inputs 0, 2, 4, 6.
func even(s0, s2, s4, s6 int64) (a, b, c, d int64) {
	z := (s2 + s6) * f0541
	t2, t3 := z-s6*f1847, z+s2*f0765
	t0, t1 := (s0+s4)<<constBits, (s0-s4)<<constBits
	return t0 + t3, t1 + t2, t1 - t2, t0 - t3
}

// odd returns the rotations of the odd part for inputs 7, 5, 3, 1; the caller
// adds the multiples of the inputs themselves, which keeps both functions small
// enough to inline.
func odd(t0, t1, t2, t3 int64) (z1, z2, z3, z4 int64) {
	z3, z4 = t0+t2, t1+t3
	z5 := (z3 + z4) * f1175
	return (t0 + t3) * -f0899, (t1 + t2) * -f2562, z3*-f1961 + z5, z4*-f0390 + z5
}

const (
	shift1 = constBits - 2     // columns keep 2 fraction bits
	shift2 = constBits + 2 + 3 // rows remove them and the factor 8

	// These are added before the shifts: half a unit in both lanes; for the
	// columns also 1<<31 in the left lane, so that it does not borrow from the
	// right lane; for the rows also the level shift.
	bias1 = 1<<(shift1-1)*both + 1<<31
	bias2 = (1<<(shift2-1) + 128<<shift2) * both
)

// idct8 writes the 8x8 samples of b, level-shifted and clamped to 0..255, to
// dst, whose rows are stride apart. All coefficients after the zigzag index
// last are zero.
func idct8(b *block, last int, dst []uint8, stride int) {
	if last == 0 {
		flat8(clamp8((b[0]<<2+16)>>5+128), dst, stride)
		return
	}
	var w [32]int64 // w[8*i+x] is column x of rows 2i and 2i+1
	for x := range (lastColumn[last&63] + 1) >> 1 {
		t3, t2, t1, t0 := b[4+x], b[12+x], b[20+x], b[28+x]
		if t3|b[8+x]|t2|b[16+x]|t1|b[24+x]|t0 == 0 {
			l, r := lanes(b[x])
			left, right := int64(l)<<2*both, int64(r)<<2*both
			w[2*x], w[8+2*x], w[16+2*x], w[24+2*x] = left, left, left, left
			w[2*x+1], w[9+2*x], w[17+2*x], w[25+2*x] = right, right, right, right
			continue
		}
		e0, e1, e2, e3 := even(b[x], b[8+x], b[16+x], b[24+x])
		z1, z2, z3, z4 := odd(t0, t1, t2, t3)
		t3 = t3*f1501 + z1 + z4
		t2 = t2*f3072 + z2 + z3
		t1 = t1*f2053 + z2 + z4
		t0 = t0*f0298 + z1 + z3
		w[2*x], w[2*x+1] = transpose(e0+t3, e1+t2)
		w[8+2*x], w[9+2*x] = transpose(e2+t1, e3+t0)
		w[16+2*x], w[17+2*x] = transpose(e3-t0, e2-t1)
		w[24+2*x], w[25+2*x] = transpose(e1-t2, e0-t3)
	}
	for i := range 4 {
		w := w[8*i : 8*i+8 : 8*i+8]
		e0, e1, e2, e3 := even(w[0]+bias2>>constBits, w[2], w[4], w[6])
		z1, z2, z3, z4 := odd(w[7], w[5], w[3], w[1])
		t3 := w[1]*f1501 + z1 + z4
		t2 := w[3]*f3072 + z2 + z3
		t1 := w[5]*f2053 + z2 + z4
		t0 := w[7]*f0298 + z1 + z3
		v0, v7 := e0+t3, e0-t3
		v1, v6 := e1+t2, e1-t2
		v2, v5 := e2+t1, e2-t1
		v3, v4 := e3+t0, e3-t0
		upper, lower := dst[2*i*stride:], dst[(2*i+1)*stride:]
		const inside = (1<<(shift2+8) - 1) * both
		if (v0|v1|v2|v3|v4|v5|v6|v7)&^inside != 0 {
			clampRows(&[8]int64{v0, v1, v2, v3, v4, v5, v6, v7}, upper, lower)
			continue
		}
		// If no value is negative or above 255, four pixels fit in a lane.
		const m = 0xFF * both
		l := v0>>shift2&m | v1>>shift2&m<<8 | v2>>shift2&m<<16 | v3>>shift2&m<<24
		r := v4>>shift2&m | v5>>shift2&m<<8 | v6>>shift2&m<<16 | v7>>shift2&m<<24
		binary.LittleEndian.PutUint64(upper, uint64(uint32(l))|uint64(r)<<32)
		binary.LittleEndian.PutUint64(lower, uint64(l)>>32|uint64(r)>>32<<32)
	}
}

// transpose rounds the sums of an upper and a lower row and returns their left
// lanes in one word and their right lanes in another.
func transpose(upper, lower int64) (left, right int64) {
	upper += bias1
	lower += bias1
	const m, bias = 1<<(32-shift1) - 1, 1 << (31 - shift1) * both
	return upper>>shift1&m + lower>>shift1&m<<32 - bias,
		upper>>(32+shift1) + lower>>(32+shift1)<<32
}

// clampRows writes two rows of eight samples and clamps them.
func clampRows(v *[8]int64, upper, lower []uint8) {
	for x, v := range v {
		u, l := lanes(v)
		upper[x], lower[x] = clamp8(int64(u>>shift2)), clamp8(int64(l>>shift2))
	}
}

// lastColumn[last] is the number of leading columns of a block that can hold a
// value other than zero if the last coefficient has the zigzag index last.
var lastColumn = func() (cols [64]int) {
	widest := 0
	for k := range cols {
		widest = max(widest, int(zigzag[k]&7)+1)
		cols[k] = widest
	}
	return cols
}()

func flat8(v uint8, dst []uint8, stride int) {
	for y := range 8 {
		d := dst[y*stride : y*stride+8 : y*stride+8]
		d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7] = v, v, v, v, v, v, v, v
	}
}

// clamp8 clamps to 0..255.
func clamp8(v int64) uint8 { return uint8(min(max(v, 0), 255)) }

// idct is the same transform for any precision, one number at a time. It returns
// the samples before level shift and clamping. pass1 is the number of fraction
// bits kept between the passes: 2 for 8-bit data and 1 for 12-bit data.
func idct(b *block, pass1 int) *[64]int32 {
	var s [64]int32
	for i, v := range b {
		s[2*i], s[2*i+1] = lanes(v)
	}
	oneD(&s, 1, 8, constBits-pass1)
	oneD(&s, 8, 1, constBits+pass1+3)
	return &s
}

// oneD transforms eight vectors and rounds shift bits away. The elements of a
// vector are step apart, and the vectors begin next apart.
func oneD(s *[64]int32, next, step, shift int) {
	r := int64(1) << (shift - 1)
	for i := range 8 {
		var v [8]int64
		for j := range 8 {
			v[j] = int64(s[i*next+j*step])
		}
		e0, e1, e2, e3 := even(v[0], v[2], v[4], v[6])
		z1, z2, z3, z4 := odd(v[7], v[5], v[3], v[1])
		e := [4]int64{e0, e1, e2, e3}
		o := [4]int64{v[1]*f1501 + z1 + z4, v[3]*f3072 + z2 + z3, v[5]*f2053 + z2 + z4, v[7]*f0298 + z1 + z3}
		for j := range 4 {
			s[i*next+j*step] = int32((e[j] + o[j] + r) >> shift)
			s[i*next+(7-j)*step] = int32((e[j] - o[j] + r) >> shift)
		}
	}
}
