package predict

import (
	"fmt"
	"math"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/metric"
)

// An OperatingPoint makes masks of probabilities.
type OperatingPoint struct {
	Rules []metric.Rule `json:"rules"` // one for each class but the background

	// Argmax leaves a pixel to a class only where no other class, the background
	// included, is more probable. It is for softmax.
	Argmax bool `json:"argmax,omitempty"`
}

// Check returns an error that says what does not fit a task.
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
// Where the task has softmax, a pixel is in one mask at most: of the classes that
// claim it, that of the highest probability has it, and of equals the first. With
// sigmoids the masks do not know of each other. It panics if prob does not consist
// of Task.Outputs equal parts.
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
		best := -1 // mask that has the pixel
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

// argmax returns the class of the highest probability at pixel j, the first one of
// several.
func argmax(prob []float32, area, j int) (class int) {
	for c := 1; c*area < len(prob); c++ {
		if prob[c*area+j] > prob[class*area+j] {
			class = c
		}
	}
	return class
}

// A Mean is the mean of the probabilities of several networks for the same images:
// the sum in float32, in the order in which they come, over their number. The zero
// Mean is empty.
type Mean struct {
	sum []float32
	n   int
}

// Reset forgets everything but the memory.
func (m *Mean) Reset() { m.n = 0 }

// Add takes the probabilities of one more network, and does not keep them. It panics
// if they are not as many as the ones before.
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

// Take returns the mean, nil if there was nothing, and is then empty. The result is
// valid until the next Add.
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
