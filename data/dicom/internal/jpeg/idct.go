package jpeg

// Fixed-point constants of the accurate integer inverse DCT: the eleven-multiply
// algorithm of Loeffler, Ligtenberg and Moschytz (ICASSP 1989) in 13 bits, as
// the Independent JPEG Group scales it. cNN is NN/10000 roughly.
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

// A block holds 64 dequantized coefficients in row-major order.
type block [64]int32

// odd returns the four sums of the odd part for inputs 7, 5, 3, 1.
func odd(t0, t1, t2, t3 int32) (a, b, c, d int32) {
	z1 := t0 + t3
	z2 := t1 + t2
	z3 := t0 + t2
	z4 := t1 + t3
	z5 := (z3 + z4) * f1175
	t0 *= f0298
	t1 *= f2053
	t2 *= f3072
	t3 *= f1501
	z1 *= -f0899
	z2 *= -f2562
	z3 = z3*-f1961 + z5
	z4 = z4*-f0390 + z5
	return t0 + z1 + z3, t1 + z2 + z4, t2 + z2 + z3, t3 + z1 + z4
}

// even returns the four sums of the even part for inputs 0, 2, 4, 6.
func even(s0, s2, s4, s6 int32) (a, b, c, d int32) {
	z1 := (s2 + s6) * f0541
	t2 := z1 - s6*f1847
	t3 := z1 + s2*f0765
	t0 := (s0 + s4) << constBits
	t1 := (s0 - s4) << constBits
	return t0 + t3, t1 + t2, t1 - t2, t0 - t3
}

// idct8 writes the 8x8 samples of b, level-shifted and clamped to 0..255, to
// dst, whose rows are stride apart. It overwrites b. last is the zigzag index
// of the last coefficient that is not zero.
func idct8(b *block, last int, dst []uint8, stride int) {
	if last == 0 {
		flat8(clamp8((b[0]<<2+16)>>5), dst, stride)
		return
	}
	cols := 8
	if last < len(lastColumn) {
		cols = lastColumn[last]
	}
	const s1 = constBits - 2
	const r1 = 1 << (s1 - 1)
	for x := range cols {
		if b[8+x]|b[16+x]|b[24+x]|b[32+x]|b[40+x]|b[48+x]|b[56+x] == 0 {
			v := b[x] << 2
			b[x], b[8+x], b[16+x], b[24+x] = v, v, v, v
			b[32+x], b[40+x], b[48+x], b[56+x] = v, v, v, v
			continue
		}
		e0, e1, e2, e3 := even(b[x], b[16+x], b[32+x], b[48+x])
		o0, o1, o2, o3 := odd(b[56+x], b[40+x], b[24+x], b[8+x])
		b[x] = (e0 + o3 + r1) >> s1
		b[56+x] = (e0 - o3 + r1) >> s1
		b[8+x] = (e1 + o2 + r1) >> s1
		b[48+x] = (e1 - o2 + r1) >> s1
		b[16+x] = (e2 + o1 + r1) >> s1
		b[40+x] = (e2 - o1 + r1) >> s1
		b[24+x] = (e3 + o0 + r1) >> s1
		b[32+x] = (e3 - o0 + r1) >> s1
	}
	const s2 = constBits + 2 + 3
	const r2 = 1 << (s2 - 1)
	for y := range 8 {
		w := b[8*y : 8*y+8 : 8*y+8]
		d := dst[y*stride : y*stride+8 : y*stride+8]
		e0, e1, e2, e3 := even(w[0], w[2], w[4], w[6])
		o0, o1, o2, o3 := odd(w[7], w[5], w[3], w[1])
		d[0] = clamp8((e0 + o3 + r2) >> s2)
		d[7] = clamp8((e0 - o3 + r2) >> s2)
		d[1] = clamp8((e1 + o2 + r2) >> s2)
		d[6] = clamp8((e1 - o2 + r2) >> s2)
		d[2] = clamp8((e2 + o1 + r2) >> s2)
		d[5] = clamp8((e2 - o1 + r2) >> s2)
		d[3] = clamp8((e3 + o0 + r2) >> s2)
		d[4] = clamp8((e3 - o0 + r2) >> s2)
	}
}

// lastColumn[last] is the number of leading columns of a block that can hold
// anything but zero when the zigzag order ends at last.
var lastColumn = [...]int{1, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 7}

func flat8(v uint8, dst []uint8, stride int) {
	for y := range 8 {
		d := dst[y*stride : y*stride+8 : y*stride+8]
		d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7] = v, v, v, v, v, v, v, v
	}
}

// clamp8 shifts the level by 128 and clamps to 0..255.
func clamp8(v int32) uint8 {
	v += 128
	if uint32(v) > 255 {
		return uint8(^(v >> 31))
	}
	return uint8(v)
}

// idct is the same transform for any precision: it leaves the samples, before
// level shift and clamp, in b. pass1 is the number of fraction bits kept
// between the passes: 2 for 8-bit data and 1 for 12-bit data.
func idct(b *block, pass1 int) {
	s1 := constBits - pass1
	oneD(b, 1, 8, s1)
	oneD(b, 8, 1, constBits+pass1+3)
}

// oneD transforms eight vectors whose elements are step apart and whose heads
// are next apart, and rounds off shift bits.
func oneD(b *block, next, step, shift int) {
	r := int64(1) << (shift - 1)
	for i := range 8 {
		var v [8]int64
		for j := range 8 {
			v[j] = int64(b[i*next+j*step])
		}
		z := (v[2] + v[6]) * f0541
		a2, a3 := z-v[6]*f1847, z+v[2]*f0765
		a0, a1 := (v[0]+v[4])<<constBits, (v[0]-v[4])<<constBits
		e := [4]int64{a0 + a3, a1 + a2, a1 - a2, a0 - a3}

		z1, z2, z3, z4 := v[7]+v[1], v[5]+v[3], v[7]+v[3], v[5]+v[1]
		z5 := (z3 + z4) * f1175
		z1, z2 = z1*-f0899, z2*-f2562
		z3, z4 = z3*-f1961+z5, z4*-f0390+z5
		o := [4]int64{v[1]*f1501 + z1 + z4, v[3]*f3072 + z2 + z3, v[5]*f2053 + z2 + z4, v[7]*f0298 + z1 + z3}
		for j := range 4 {
			b[i*next+j*step] = int32((e[j] + o[j] + r) >> shift)
			b[i*next+(7-j)*step] = int32((e[j] - o[j] + r) >> shift)
		}
	}
}
