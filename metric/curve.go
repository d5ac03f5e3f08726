package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// A Curve is the pixel counts of one class of one image at each of some
// thresholds: all that is needed of the image to score it at any of them.
type Curve struct {
	Pixels    int     // of the image
	Target    int     // of them in the target
	Sum       float64 // of the probabilities, see [Sum]
	Predicted []int32 // at each threshold
	Both      []int32 // predicted and in the target, at each threshold
}

// At returns the counts at threshold k.
func (c *Curve) At(k int) Overlap {
	return Overlap{Both: int(c.Both[k]), Predicted: int(c.Predicted[k]), Target: c.Target}
}

// A counter makes curves. It reads each pixel once: the pixel goes into a
// histogram by the number of thresholds that it exceeds, and sums over the
// histogram are the counts at every threshold, the same integers that counting at
// each would give.
type counter struct {
	thresholds []float64
	asFloat32  []float32 // what probabilities are compared with; then +Inf, which nothing exceeds

	// below[c] is the number of thresholds under c/cells: where to begin looking
	// for a probability in [c/cells, (c+1)/cells).
	below [cells + 1]int32
	hist  []int32 // of one image: [2*b+t] pixels that exceed exactly b thresholds, t=1 in the target
}

const cells = 1024 // a power of two: multiplying by it is exact

func newCounter(thresholds []float64) (counter, error) {
	if len(thresholds) == 0 {
		return counter{}, errors.New("metric: no thresholds; want at least one")
	}
	c := counter{
		thresholds: slices.Clone(thresholds),
		asFloat32:  make([]float32, len(thresholds)+1),
		hist:       make([]int32, 2*(len(thresholds)+1)),
	}
	for i, t := range thresholds {
		if !(t >= 0 && t <= 1) || i > 0 && t < thresholds[i-1] {
			return counter{}, fmt.Errorf("metric: threshold %d is %v; want ascending values in [0, 1]", i, t)
		}
		c.asFloat32[i] = float32(t)
	}
	c.asFloat32[len(thresholds)] = float32(math.Inf(1))
	for i := range c.below {
		n, _ := slices.BinarySearch(c.asFloat32, float32(i)/cells)
		c.below[i] = int32(n)
	}
	return c, nil
}

// count fills a curve, but for its Sum, and makes its slices where they are not
// yet of the right length. It panics if the image has more than 2^31-1 pixels.
func (c *counter) count(to *Curve, prob []float32, target []uint8, class uint8) {
	if len(prob) > math.MaxInt32 {
		panic(errors.New("metric: an image of more than 2^31-1 pixels"))
	}
	n := len(c.thresholds)
	if len(to.Predicted) != n {
		to.Predicted, to.Both = make([]int32, n), make([]int32, n)
	}
	to.Pixels, to.Target = len(prob), c.fill(prob, target, class)
	var predicted, both int32
	for k := n - 1; k >= 0; k-- {
		both += c.hist[2*k+3]
		predicted += c.hist[2*k+2] + c.hist[2*k+3]
		to.Predicted[k], to.Both[k] = predicted, both
	}
}

// fill fills the histogram, except for the pixels that exceed no threshold, which
// nobody asks for, and returns the number of target pixels.
func (c *counter) fill(prob []float32, target []uint8, class uint8) (inTarget int) {
	clear(c.hist)
	thr, hist := c.asFloat32, c.hist
	lowest := thr[0]
	target = target[:len(prob)]
	for i, p := range prob {
		t := 0
		if target[i] == class {
			t = 1
		}
		inTarget += t
		if !(p > lowest) {
			continue
		}
		b := int(c.below[min(int(min(p, 1)*cells), cells)])
		for p > thr[b] {
			b++
		}
		hist[2*b+t]++
	}
	return inTarget
}

// A tally sums the scores of images, exactly.
type tally struct {
	negatives, correct int // images without target, and those of them predicted empty
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

// without returns the tally of the images that are not among o's.
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
