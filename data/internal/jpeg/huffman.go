package jpeg

// lutBits is the width of the first-level tables. Most codes in a film,
// together with the bits of the coefficient after them, fit in 10 bits.
const lutBits = 10

// endOfBlock is a run that goes past the end of any block.
const endOfBlock = 64

// A huffman table decodes one symbol per look-up, and also the value bits after
// it if both fit in lutBits.
type huffman struct {
	ok bool

	// code[i] is length<<8 | symbol for the code at the beginning of i, a
	// string of lutBits bits; 0 if the code is longer.
	code [1 << lutBits]uint16

	// ac[i] is value<<16 | run<<8 | bits if i begins with a whole coefficient,
	// endOfBlock<<8 | bits if it begins with an end of block, else 0.
	ac [1 << lutBits]int32

	// For longer codes: a code of length l, shifted left to 16 bits, is below
	// limit[l]; its symbol is vals[(code>>(16-l)) + delta[l]].
	limit [18]int32
	delta [17]int32
	vals  [256]uint8
}

// build fills h from the counts of codes of length 1 to 16 and the symbols in
// code order (T.81 annex C). It returns false if there are more codes than the
// tree can hold.
func (h *huffman) build(counts *[16]uint8, vals []byte) bool {
	*h = huffman{ok: true}
	copy(h.vals[:], vals)
	code, k := int32(0), int32(0)
	for l := 1; l <= 16; l++ {
		n := int32(counts[l-1])
		h.delta[l] = k - code
		for range n {
			if code >= 1<<l {
				return false
			}
			if l <= lutBits {
				base := code << (lutBits - l)
				for j := range int32(1) << (lutBits - l) {
					h.code[base+j] = uint16(l)<<8 | uint16(vals[k])
				}
			}
			code++
			k++
		}
		h.limit[l] = code << (16 - l)
		code <<= 1
	}
	h.limit[17] = 1 << 30
	for i, c := range h.code {
		l, sym := uint(c>>8), uint(c&0xFF)
		run, s := sym>>4, sym&15
		if c != 0 && sym == 0 {
			h.ac[i] = endOfBlock<<8 | int32(l)
		}
		if c == 0 || s == 0 || l+s > lutBits {
			continue
		}
		v := extend(int32(i>>(lutBits-l-s))&(1<<s-1), s)
		h.ac[i] = v<<16 | int32(run<<8) | int32(l+s)
	}
	return true
}

// symbol reads the next symbol. It returns false if the bits are not a code.
func (r *bitReader) symbol(h *huffman) (uint8, bool) {
	if r.n < 32 {
		r.refill()
	}
	if c := h.code[r.acc>>(64-lutBits)]; c != 0 {
		l := uint(c >> 8)
		r.acc <<= l
		r.n -= l
		return uint8(c), true
	}
	return r.longSymbol(h)
}

func (r *bitReader) longSymbol(h *huffman) (uint8, bool) {
	top := int32(r.acc >> 48)
	l := uint(1)
	for top >= h.limit[l] {
		l++
	}
	if l > 16 {
		return 0, false
	}
	r.acc <<= l
	r.n -= l
	return h.vals[(top>>(16-l)+h.delta[l])&0xFF], true
}

// extend turns s bits into the signed value that they code (T.81 F.2.2.1).
func extend(v int32, s uint) int32 {
	if v < 1<<s>>1 {
		v -= 1<<s - 1
	}
	return v
}
