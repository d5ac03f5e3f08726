package predict

import (
	"fmt"
	"math"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/metric"
)

// An OperatingPoint holds the rules that turn probabilities into masks.
type OperatingPoint struct {
	Rules []metric.Rule `json:"rules"` // one for each class but the background

	// Argmax takes a pixel out of a class's mask if another class, such as the
	// background, is more probable there. It is only for tasks with softmax.
	Argmax bool `json:"argmax,omitempty"`
}

// Check returns an error if p does not fit the task t or has an impossible rule.
func (p OperatingPoint) Check(t data.Task) error {
	if n := len(t.Classes) - 1; len(p.Rules) != n {
		return fmt.Errorf("predict: operating point: %d rules; wanted %d, one for each class but %s", len(p.Rules), n, t.Classes[0])
	}
	if p.Argmax && t.Output != data.Softmax {
		return fmt.Errorf("predict: operating point: argmax is for %s; the task has %s", data.Softmax, t.Output)
	}
	for i, r := range p.Rules {
		ok := r.MinArea >= 0 && r.MinSum >= 0 && !math.IsInf(r.MinSum, 0)
		for _, v := range []float64{r.Top, r.Bottom} {
			ok = ok && v >= 0 && v <= 1
		}
		if !ok || r.Bottom > r.Top {
			return fmt.Errorf("predict: operating point: class %s has the rule %+v; wanted thresholds of 0 to 1, the bottom one not above the top one, and no negative number",
				t.Classes[i+1], r)
		}
	}
	return nil
}

// Masks returns a mask, of zeros and ones, for each class but the background, from
// the probabilities (K, H, W) of an image as an Engine returns them.
//
// With softmax, a pixel is in at most one mask: if the rules of several classes select
// it, it belongs to the most probable of these classes, and of equally probable ones to
// the first. With sigmoids the masks are independent and may overlap. Masks panics if
// len(prob) is not a multiple of Task.Outputs.
func (p OperatingPoint) Masks(prob []float32, t data.Task) [][]uint8 {
	outputs, first := t.Outputs(), 0
	if t.Output == data.Softmax {
		first = 1
	}
	area := len(prob) / outputs
	if area*outputs != len(prob) {
		panic(fmt.Errorf("predict: %d probabilities for %d outputs", len(prob), outputs))
	}
	of := func(output int) []float32 { return prob[output*area:][:area] }
	masks := make([][]uint8, len(p.Rules))
	for i, r := range p.Rules {
		masks[i] = make([]uint8, area)
		r.Apply(masks[i], of(first+i), 1)
	}
	if t.Output == data.Sigmoid || len(masks) == 1 && !p.Argmax {
		return masks
	}
	for j := range area {
		best := -1 // index of the mask that gets the pixel
		for i := range masks {
			if masks[i][j] != 0 && (best < 0 || of(first + i)[j] > of(first + best)[j]) {
				best = i
			}
		}
		if p.Argmax && best >= 0 && argmax(prob, area, j) != first+best {
			best = -1
		}
		for i := range masks {
			if i != best {
				masks[i][j] = 0
			}
		}
	}
	return masks
}

// argmax returns the most probable class at pixel j, or the first of several.
func argmax(prob []float32, area, j int) (class int) {
	for c := 1; c*area < len(prob); c++ {
		if prob[c*area+j] > prob[class*area+j] {
			class = c
		}
	}
	return class
}

// A Mean computes the mean of the probabilities of several networks for the same images:
// their sum in float32, in the order of the calls of Add, divided by their number. The
// zero Mean is empty.
type Mean struct {
	sum []float32
	n   int
}

// Reset makes m empty and keeps its memory for the next Add.
func (m *Mean) Reset() { m.n = 0 }

// Add adds the probabilities of one more network and does not keep prob. It panics if
// len(prob) differs from that of the calls before.
func (m *Mean) Add(prob []float32) {
	if m.n == 0 {
		m.sum = append(m.sum[:0], prob...)
		m.n = 1
		return
	}
	if len(prob) != len(m.sum) {
		panic(fmt.Errorf("predict: %d probabilities after %d", len(prob), len(m.sum)))
	}
	for i, v := range prob {
		m.sum[i] += v
	}
	m.n++
}

// Take returns the mean and makes m empty. It returns nil if m was empty already. The
// result is valid until the next Add.
func (m *Mean) Take() []float32 {
	if m.n == 0 {
		return nil
	}
	n := float32(m.n)
	for i := range m.sum {
		m.sum[i] /= n
	}
	m.n = 0
	return m.sum
}
