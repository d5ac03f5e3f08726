package metric

import (
	"fmt"
	"math"
)

// A Histogram counts pixels by their probability of one class, separately for
// pixels in the target and other pixels. From these counts it computes the
// scores that need no threshold. It takes 64 KiB, however many images were
// added.
//
// A probability p is counted as floor(4096 p)/4096, one of 4097 values from 0 to 1. All
// scores are exact for the probabilities rounded in this way. Each score comes with two
// bounds, between which the score of the unrounded probabilities lies. Probabilities
// outside [0, 1] count as 0 or 1, NaN as 0.
//
// The zero Histogram is empty. A Histogram must not be used by several goroutines
// at once: give each its own, then call Merge.
type Histogram struct {
	counts [resolution + 1][2]int64 // [bin][1 in the target]
}

// resolution is the number of steps between 0 and 1, a power of two, so that
// multiplying by it is exact.
const resolution = 4096

// Add takes one image: the probability of a class and the target. It panics if
// they differ in length.
func (h *Histogram) Add(prob []float32, target []uint8, class uint8) {
	mustMatch(len(prob), len(target))
	for i, p := range prob {
		t := 0
		if target[i] == class {
			t = 1
		}
		bin := 0
		if p > 0 {
			bin = binOf(p)
		}
		h.counts[bin][t]++
	}
}

// binOf returns the bin of a probability that is not negative.
func binOf(p float32) int {
	if p < 1 {
		return int(p * resolution)
	}
	return resolution
}

// Merge adds the pixels of another Histogram.
func (h *Histogram) Merge(o *Histogram) {
	for bin := range h.counts {
		h.counts[bin][0] += o.counts[bin][0]
		h.counts[bin][1] += o.counts[bin][1]
	}
}

// Pixels returns the number of pixels in and outside the target.
func (h *Histogram) Pixels() (inTarget, outside int64) {
	for _, c := range h.counts {
		outside += c[0]
		inTarget += c[1]
	}
	return inTarget, outside
}

// A Bounded is a score of rounded probabilities. The score of the unrounded
// ones lies between Low and High.
type Bounded struct{ Value, Low, High float64 }

// AveragePrecision returns the mean precision over recall of all pixels together,
// sum of (R[n]-R[n-1])*P[n] over the descending thresholds; NaN without a target
// pixel.
//
// Source: scikit-learn 1.9.1, average_precision_score.
//
// The bounds: take a bin with p target pixels and n others, where t target pixels
// and f others have a higher probability. Precision is highest if the target pixels
// of the bin come first and together: (t+p)/(t+p+f) for each. It is lowest if they
// come last and one by one: the sum of (t+i)/(t+i+f+n) for i from 1 to p, which is
// at least the integral from 0 to p.
func (h *Histogram) AveragePrecision() Bounded {
	positives, _ := h.Pixels()
	if positives == 0 {
		return Bounded{math.NaN(), math.NaN(), math.NaN()}
	}
	var ap Bounded
	var t, f float64
	for bin := resolution; bin >= 0; bin-- {
		p, n := float64(h.counts[bin][1]), float64(h.counts[bin][0])
		if p > 0 {
			ap.Value += p * (t + p) / (t + p + f + n)
			ap.High += p * (t + p) / (t + p + f)
			ap.Low += p
			if f+n > 0 {
				ap.Low -= (f + n) * math.Log1p(p/(t+f+n))
			}
		}
		t, f = t+p, f+n
	}
	ap.Value /= float64(positives)
	ap.Low /= float64(positives)
	ap.High /= float64(positives)
	return ap
}

// BestDice returns the highest Dice of all pixels together over the thresholds
// k/4096, and its threshold, the highest one if there are several; NaN without a
// target pixel. A pixel is predicted if its probability is at least k/4096. The
// bounds are those of the highest Dice over all thresholds. This Dice is not a mean
// over images: large masks count for more. See [Sweep] for the best mean.
func (h *Histogram) BestDice() (threshold float64, dice Bounded) {
	positives, _ := h.Pixels()
	if positives == 0 {
		return math.NaN(), Bounded{math.NaN(), math.NaN(), math.NaN()}
	}
	var t, f int64
	for bin := resolution; bin >= 0; bin-- {
		p, n := h.counts[bin][1], h.counts[bin][0]
		if d := 2 * float64(t+p) / float64(t+p+f+n+positives); d > dice.Value {
			threshold, dice.Value = float64(bin)/resolution, d
		}
		dice.High = max(dice.High, 2*float64(t+p)/float64(t+p+f+positives)) // its target pixels first
		t, f = t+p, f+n
	}
	dice.Low = dice.Value // reached by a threshold just below k/4096
	return threshold, dice
}

// A Bin describes the pixels whose probability lies in [Low, High); the last bin
// includes 1.
type Bin struct {
	Low, High float64
	Pixels    int64
	InTarget  int64

	// Mean is the mean probability, computed from the middles of the histogram's bins.
	// Its error is at most 1/8192. It is NaN without pixels.
	Mean float64
}

// Calibration returns n bins of equal width, n from 1 to 4096, and an error for
// another n. The probabilities are calibrated if in each bin the share of pixels in
// the target equals the mean probability. A limit between bins is rounded down to a
// multiple of 1/4096.
func (h *Histogram) Calibration(n int) ([]Bin, error) {
	if n < 1 || n > resolution {
		return nil, fmt.Errorf("metric: %d bins of calibration, want 1 to %d", n, resolution)
	}
	bins := make([]Bin, n)
	for i := range bins {
		b := &bins[i]
		low, high := i*resolution/n, (i+1)*resolution/n
		b.Low, b.High = float64(low)/resolution, float64(high)/resolution
		if i == n-1 {
			high++
		}
		sum := 0.0
		for bin := low; bin < high; bin++ {
			c := h.counts[bin]
			b.Pixels += c[0] + c[1]
			b.InTarget += c[1]
			middle := min(float64(bin)+0.5, resolution) // the last bin holds only 1
			sum += float64(c[0]+c[1]) * (middle / resolution)
		}
		b.Mean = sum / float64(b.Pixels)
	}
	return bins, nil
}

// CalibrationError returns the expected calibration error: the mean over pixels of
// the difference between share and mean probability in their bin.
//
// Source: M. P. Naeini, G. F. Cooper, M. Hauskrecht, AAAI 2015.
func CalibrationError(bins []Bin) float64 {
	var sum float64
	var pixels int64
	for _, b := range bins {
		if b.Pixels > 0 {
			sum += math.Abs(float64(b.InTarget) - b.Mean*float64(b.Pixels))
			pixels += b.Pixels
		}
	}
	return sum / float64(pixels)
}
