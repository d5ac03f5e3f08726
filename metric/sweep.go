package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Thresholds returns the 99 thresholds the notebook tries, 0.01 to 0.99, with
// the rounding errors of numpy's arange(0.01, 1, 0.01).
func Thresholds() []float64 {
	t := make([]float64, 99)
	for i := range t {
		t[i] = 0.01 + float64(float64(i)*0.01) // the inner conversion forbids a fused multiply-add
	}
	return t
}

// A Sweep collects the mean Dice at many thresholds. Each image is read once and
// not kept: its pixels go into one histogram of the thresholds they exceed, for
// the target and for all pixels, and sums over that give its counts at every
// threshold, the same integers that counting at each would give.
//
// Sums of scores are exact, so a Sweep depends on the set of images alone, not
// on their order or on how they were divided among Sweeps that were merged. A
// Sweep is not for several goroutines: give each its own, then Merge.
type Sweep struct {
	thresholds []float64
	asFloat32  []float32 // what probabilities are compared with
	noise      Noise

	// below[c] is the number of thresholds under c/cells: where to begin looking
	// for a probability in [c/cells, (c+1)/cells).
	below [cells + 1]int32
	hist  []int32 // of one image: [2*b+t] pixels that exceed exactly b thresholds, t=1 in the target

	positives, negatives int
	correct              []int      // negatives predicted empty, per threshold
	dice                 []exactSum // of the positives, per threshold
}

const cells = 1024 // a power of two: multiplying by it is exact

// NewSweep returns an empty Sweep. nil thresholds are those of [Thresholds].
// Noise rules act on each image, MinPixels at each threshold anew. It panics if
// there is no threshold or they do not ascend within [0, 1].
func NewSweep(thresholds []float64, noise Noise) *Sweep {
	if thresholds == nil {
		thresholds = Thresholds()
	}
	if len(thresholds) == 0 {
		panic(errors.New("metric: a sweep needs a threshold"))
	}
	s := &Sweep{
		thresholds: slices.Clone(thresholds),
		asFloat32:  make([]float32, len(thresholds)),
		noise:      noise,
		hist:       make([]int32, 2*(len(thresholds)+1)),
		correct:    make([]int, len(thresholds)),
		dice:       make([]exactSum, len(thresholds)),
	}
	for i, t := range thresholds {
		if !(t >= 0 && t <= 1) || i > 0 && t < thresholds[i-1] {
			panic(fmt.Errorf("metric: threshold %d is %v; want ascending values in [0, 1]", i, t))
		}
		s.asFloat32[i] = float32(t)
	}
	for c := range s.below {
		n, _ := slices.BinarySearch(s.asFloat32, float32(c)/cells)
		s.below[c] = int32(n)
	}
	return s
}

// Add takes one image. It panics if prob and target differ in length.
func (s *Sweep) Add(prob []float32, target []uint8) {
	mustMatch(len(prob), len(target))
	if len(prob) > math.MaxInt32 {
		panic(errors.New("metric: an image of more than 2^31-1 pixels"))
	}
	inTarget := s.count(prob, target)
	if inTarget > 0 {
		s.positives++
	} else {
		s.negatives++
	}
	empty := s.noise.MinSum > 0 && Sum(prob) < s.noise.MinSum

	o := Overlap{Target: inTarget}
	for k := len(s.thresholds) - 1; k >= 0; k-- {
		o.Predicted += int(s.hist[2*k+2] + s.hist[2*k+3])
		o.Both += int(s.hist[2*k+3])
		scored := o
		if empty || float64(o.Predicted) < s.noise.MinPixels {
			scored.Predicted, scored.Both = 0, 0
		}
		switch {
		case inTarget > 0:
			s.dice[k].add(scored.Dice())
		case scored.Predicted == 0:
			s.correct[k]++
		}
	}
}

// count fills the histogram with one image, except for the pixels that exceed no
// threshold, which nobody asks for, and returns the number of target pixels.
func (s *Sweep) count(prob []float32, target []uint8) (inTarget int) {
	clear(s.hist)
	thr := s.asFloat32
	lowest := thr[0]
	for i, p := range prob {
		t := 0
		if target[i] != 0 {
			t = 1
			inTarget++
		}
		if !(p > lowest) {
			continue
		}
		b := int(s.below[min(int(min(p, 1)*cells), cells)])
		for b < len(thr) && p > thr[b] {
			b++
		}
		s.hist[2*b+t]++
	}
	return inTarget
}

// Merge adds the images of another Sweep, such as that of another fold. It
// returns an error if the other has other thresholds or noise rules.
func (s *Sweep) Merge(o *Sweep) error {
	if !slices.Equal(s.thresholds, o.thresholds) || s.noise != o.noise {
		return fmt.Errorf("metric: cannot merge a sweep of %d thresholds with noise %+v into one of %d with noise %+v: they must be the same",
			len(o.thresholds), o.noise, len(s.thresholds), s.noise)
	}
	s.positives += o.positives
	s.negatives += o.negatives
	for k := range s.dice {
		s.correct[k] += o.correct[k]
		s.dice[k].merge(o.dice[k])
	}
	return nil
}

// Thresholds returns the thresholds of the sweep, ascending.
func (s *Sweep) Thresholds() []float64 { return slices.Clone(s.thresholds) }

// Images returns the number of images added.
func (s *Sweep) Images() int { return s.positives + s.negatives }

// Dice returns the mean Dice at each threshold, NaN if there was no image.
func (s *Sweep) Dice() []float64 {
	d := make([]float64, len(s.thresholds))
	for k := range d {
		d[k] = s.At(k).Dice
	}
	return d
}

// At returns the mean Dice at threshold k and its parts.
func (s *Sweep) At(k int) Parts { return newParts(s.negatives, s.correct[k], s.positives, s.dice[k]) }

// Best returns the threshold of the highest mean Dice, the lowest such threshold
// if there are several, as numpy's argmax picks it; the first one if the sweep
// has seen no images.
//
// A Dice at a threshold chosen on the same images flatters.
func (s *Sweep) Best() (threshold float64, at Parts) {
	best := 0
	dice := s.Dice()
	for k, d := range dice {
		if d > dice[best] {
			best = k
		}
	}
	return s.thresholds[best], s.At(best)
}
