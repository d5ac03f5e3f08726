package metric

import (
	"math"
	"math/bits"
)

// An exactSum adds numbers in [0, 2^31] without rounding, so that the order of the
// additions cannot matter. It is a fixed-point number of 128 bits, 96 of them
// after the point: exact for scores down to 2^-43 (one pixel right among 2^43),
// while the sum stays below 2^32.
type exactSum struct{ hi, lo uint64 }

const fraction = 96

func exact(v float64) exactSum {
	if v == 0 {
		return exactSum{}
	}
	frac, exp := math.Frexp(v)
	mantissa := uint64(frac * (1 << 53)) // v = mantissa * 2^(exp-53)
	switch shift := exp - 53 + fraction; {
	case shift < 0:
		return exactSum{lo: mantissa >> -shift}
	case shift < 64:
		return exactSum{mantissa >> (64 - shift), mantissa << shift}
	default:
		return exactSum{hi: mantissa << (shift - 64)}
	}
}

func exactInt(n int) exactSum { return exactSum{hi: uint64(n) << (fraction - 64)} }

func (s *exactSum) add(o exactSum) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, o.lo, 0)
	s.hi, _ = bits.Add64(s.hi, o.hi, carry)
}

// sub subtracts a sum of numbers that were added before.
func (s *exactSum) sub(o exactSum) {
	var borrow uint64
	s.lo, borrow = bits.Sub64(s.lo, o.lo, 0)
	s.hi, _ = bits.Sub64(s.hi, o.hi, borrow)
}

// over returns the sum divided by n; the sum and the quotient are each rounded
// to nearest.
func (s exactSum) over(n int) float64 { return s.float64() / float64(n) }

// float64 returns the sum rounded to nearest, ties to even.
func (s exactSum) float64() float64 {
	zeros := bits.LeadingZeros64(s.hi)
	if s.hi == 0 {
		zeros = 64 + bits.LeadingZeros64(s.lo)
	}
	hi, lo := s.hi, s.lo // shifted so that the highest bit is set
	if zeros >= 64 {
		hi, lo = lo<<(zeros-64), 0
	} else if zeros > 0 {
		hi, lo = hi<<zeros|lo>>(64-zeros), lo<<zeros
	}
	if lo != 0 {
		hi |= 1 // a bit below the 53 that remain; it only says that the rest is not 0
	}
	return math.Ldexp(float64(hi), 64-zeros-fraction) // the conversion rounds
}
