package clahe

import "math"

// Stats holds sums over the values of one or more equalized images. They give
// the mean and the standard deviation of the whole set. The zero value is an
// empty set.
type Stats struct {
	N     int64   // number of values
	Sum   float64 // sum of the values
	SumSq float64 // sum of their squares
}

// Add adds values to the sums.
func (s *Stats) Add(values []float64) {
	var sum, sumSq float64
	for _, v := range values {
		sum += v
		sumSq += v * v
	}
	s.Merge(Stats{int64(len(values)), sum, sumSq})
}

// Merge adds the sums of other.
func (s *Stats) Merge(other Stats) {
	s.N += other.N
	s.Sum += other.Sum
	s.SumSq += other.SumSq
}

// Mean returns the mean value; NaN for an empty set.
func (s Stats) Mean() float64 { return s.Sum / float64(s.N) }

// Std returns the population standard deviation, sqrt(E[x²] - mean²), as the
// notebook's data preparation computes it; NaN for an empty set.
func (s Stats) Std() float64 {
	mean := s.Mean()
	return math.Sqrt(max(s.SumSq/float64(s.N)-mean*mean, 0))
}
