package metric

import (
	"math"
	"math/big"
	"math/bits"
)

// An exactSum adds scores in [0, 1] without rounding, so that the order of the
// additions cannot matter. It is a fixed-point number of 128 bits, 96 of them
// after the point: exact for scores down to 2^-43 (one pixel right among 2^43)
// and for up to 2^32 of them.
type exactSum struct{ hi, lo uint64 }

const fraction = 96

func (s *exactSum) add(v float64) {
	if v == 0 {
		return
	}
	frac, exp := math.Frexp(v)
	mantissa := uint64(frac * (1 << 53)) // v = mantissa * 2^(exp-53)
	shift := exp - 53 + fraction         // 44 for v = 1, less below
	if shift < 0 {
		mantissa, shift = mantissa>>-shift, 0
	}
	s.merge(exactSum{mantissa >> (64 - shift), mantissa << shift})
}

func (s *exactSum) addInt(n int) { s.merge(exactSum{uint64(n) << (fraction - 64), 0}) }

func (s *exactSum) merge(o exactSum) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, o.lo, 0)
	s.hi, _ = bits.Add64(s.hi, o.hi, carry)
}

// over returns the sum divided by n, both roundings to nearest.
func (s exactSum) over(n int) float64 {
	i := new(big.Int).SetUint64(s.hi)
	i.Lsh(i, 64).Or(i, new(big.Int).SetUint64(s.lo))
	f := new(big.Float).SetInt(i)
	v, _ := f.SetMantExp(f, -fraction).Float64()
	return v / float64(n)
}
