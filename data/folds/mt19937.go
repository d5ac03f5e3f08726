package folds

import "gonum.org/v1/gonum/mathext/prng"

// A legacyRandom draws the same numbers as numpy's RandomState: the Mersenne
// Twister MT19937, seeded with one 32-bit number.
type legacyRandom struct{ *prng.MT19937 }

// newLegacyRandom returns the generator of np.random.RandomState(seed).
func newLegacyRandom(seed uint32) legacyRandom {
	r := prng.NewMT19937()
	r.Seed(uint64(seed))
	return legacyRandom{r}
}

// interval returns a number in [0, most]. It draws numbers with as many bits as
// most has, until one is not above most.
//
// Source: numpy/random/src/distributions/distributions.c, random_interval.
func (r legacyRandom) interval(most uint32) uint32 {
	if most == 0 {
		return 0
	}
	mask := most
	for shift := 1; shift < 32; shift *= 2 {
		mask |= mask >> shift
	}
	for {
		if v := r.Uint32() & mask; v <= most {
			return v
		}
	}
}

// permutation returns the numbers 0 to n-1 in the order in which
// RandomState.shuffle puts np.arange(n).
//
// Source: numpy/random/mtrand.pyx, RandomState.shuffle.
func (r legacyRandom) permutation(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	for i := n - 1; i > 0; i-- {
		j := r.interval(uint32(i))
		p[i], p[j] = p[j], p[i]
	}
	return p
}
