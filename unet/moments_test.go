package unet_test

import "math"

// moments holds the mean, the standard deviation, the largest magnitude, the sum, and
// the sum of magnitudes of a list of numbers.
type moments struct{ mean, std, absMax, sum, sumAbs float64 }

func momentsOf(v []float64) moments {
	var m moments
	for _, x := range v {
		m.sum += x
		m.sumAbs += math.Abs(x)
		m.absMax = max(m.absMax, math.Abs(x))
	}
	m.mean = m.sum / float64(len(v))
	for _, x := range v {
		m.std += (x - m.mean) * (x - m.mean)
	}
	m.std = math.Sqrt(m.std / float64(len(v)))
	return m
}
