package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// A Curve holds the pixel counts of one class of one image at each of several
// thresholds. They are enough to score the image at any of these thresholds.
type Curve struct {
	Pixels    int     // of the image
	Target    int     // pixels in the target
	Sum       float64 // of the probabilities, see [Sum]
	Predicted []int32 // at each threshold
	Both      []int32 // predicted and in the target, at each threshold
}

// At returns the counts at threshold k.
func (c *Curve) At(k int) Overlap {
	return Overlap{Both: int(c.Both[k]), Predicted: int(c.Predicted[k]), Target: c.Target}
}

// A counter makes curves and histograms. It reads each pixel once and counts it in
// a cell, which is given by the pixel's bin of a [Histogram] and by the number of
// thresholds that the pixel exceeds. Sums over the cells are the exact counts at
// every threshold.
//
// A pixel of bin i that exceeds b thresholds is counted in cell i+b. Both numbers
// grow with the probability, so two different pairs never share a cell.
type counter struct {
	thresholds []float64
	asFloat32  []float32             // the thresholds as float32, then +Inf, which no probability exceeds
	below      [resolution + 1]int32 // the number of thresholds under i/resolution
	from       []int32               // the first cell in which each threshold is exceeded
	cells      []int32               // of one image: [2*cell+1] pixels in the target, [2*cell] others
}

func newCounter(thresholds []float64) (counter, error) {
	if len(thresholds) == 0 {
		return counter{}, errors.New("metric: no thresholds; want at least one")
	}
	c := counter{
		thresholds: slices.Clone(thresholds),
		asFloat32:  make([]float32, len(thresholds)+1),
		from:       make([]int32, len(thresholds)),
		cells:      make([]int32, 2*(resolution+1+len(thresholds))),
	}
	for i, t := range thresholds {
		if !(t >= 0 && t <= 1) || i > 0 && t < thresholds[i-1] {
			return counter{}, fmt.Errorf("metric: threshold %d is %v; want ascending values in [0, 1]", i, t)
		}
		c.asFloat32[i] = float32(t)
		c.from[i] = int32(binOf(float32(t)) + i + 1)
	}
	c.asFloat32[len(thresholds)] = float32(math.Inf(1))
	for i := range c.below {
		n, _ := slices.BinarySearch(c.asFloat32, float32(i)/resolution)
		c.below[i] = int32(n)
	}
	return c, nil
}

// clone returns a counter for another goroutine.
func (c *counter) clone() *counter {
	own := *c
	own.cells = make([]int32, len(c.cells))
	return &own
}

// read counts the pixels of an image. It panics if the image has more than 2^31-1.
func (c *counter) read(prob []float32, target []uint8, class uint8) {
	if len(prob) > math.MaxInt32 {
		panic(errors.New("metric: an image of more than 2^31-1 pixels"))
	}
	clear(c.cells)
	cells, thr := c.cells, c.asFloat32
	target = target[:len(prob)]
	for i, p := range prob {
		t := 0
		if target[i] == class {
			t = 1
		}
		cell := 0
		if p > 0 {
			bin := binOf(p)
			b := int(c.below[bin])
			for p > thr[b] {
				b++
			}
			cell = bin + b
		}
		cells[2*cell+t]++
	}
}

// curve writes the counts of the image that was read last, all but Sum. It
// allocates the slices if their length is not right.
func (c *counter) curve(to *Curve) {
	n := len(c.thresholds)
	if len(to.Predicted) != n {
		to.Predicted, to.Both = make([]int32, n), make([]int32, n)
	}
	var others, both int32
	cell := len(c.cells)/2 - 1
	sum := func(from int) {
		for ; cell >= from; cell-- {
			others += c.cells[2*cell]
			both += c.cells[2*cell+1]
		}
	}
	for k := n - 1; k >= 0; k-- {
		sum(int(c.from[k]))
		to.Predicted[k], to.Both[k] = others+both, both
	}
	sum(0)
	to.Pixels, to.Target = int(others+both), int(both)
}

// addTo adds the image that was read last to a histogram.
func (c *counter) addTo(h *Histogram) {
	cell := 0
	for bin := range h.counts {
		next := len(c.cells) / 2
		if bin < resolution {
			next = bin + 1 + int(c.below[bin+1])
		}
		for ; cell < next; cell++ {
			h.counts[bin][0] += int64(c.cells[2*cell])
			h.counts[bin][1] += int64(c.cells[2*cell+1])
		}
	}
}

// A tally is the exact sum of the scores of images.
type tally struct {
	negatives, correct int // images with an empty target; how many of them are predicted empty
	positives          int
	dice               exactSum // of the positives
}

func (t *tally) add(o Overlap) {
	switch {
	case o.Target > 0:
		t.positives++
		t.dice.add(exact(o.Dice()))
	case o.Predicted == 0:
		t.negatives++
		t.correct++
	default:
		t.negatives++
	}
}

func (t *tally) merge(o tally) {
	t.negatives += o.negatives
	t.correct += o.correct
	t.positives += o.positives
	t.dice.add(o.dice)
}

// without returns the tally of the images of t that are not in o.
func (t tally) without(o tally) tally {
	t.negatives -= o.negatives
	t.correct -= o.correct
	t.positives -= o.positives
	t.dice.sub(o.dice)
	return t
}

func (t *tally) images() int { return t.negatives + t.positives }

// mean returns the mean Dice, NaN without images.
func (t *tally) mean() float64 {
	sum := t.dice
	sum.add(exactInt(t.correct))
	return sum.over(t.images())
}

func (t *tally) parts() Parts {
	p := Parts{Dice: t.mean(), Negatives: t.negatives, Positives: t.positives}
	if t.negatives > 0 {
		p.Specificity = float64(t.correct) / float64(t.negatives)
	}
	if t.positives > 0 {
		p.DicePositive = t.dice.over(t.positives)
	}
	return p
}
