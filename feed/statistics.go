package feed

import "math"

// Statistics returns the mean and the standard deviation, sqrt(E[x²] - mean²), of
// all values of each channel, in units where values lie in [0, 1].
func (m *Images) Statistics() (mean, std []float64) {
	mean, std = make([]float64, m.Channels), make([]float64, m.Channels)
	highest := float64(uint64(1)<<m.Bits - 1)
	n := float64(m.Len()) * float64(m.Width*m.Height)
	for c := range mean {
		var sum, squares float64
		for _, i := range m.indices {
			sum += float64(m.facts[i].sum[c])
			squares += float64(m.facts[i].squares[c])
		}
		mean[c] = sum / n / highest
		std[c] = math.Sqrt(max(squares/n/highest/highest-mean[c]*mean[c], 0))
	}
	return mean, std
}
