package loss

import (
	"errors"
	"fmt"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// CrossEntropy is the mean over all pixels of -log softmax(scores)[target], for
// data.Softmax. The zero value gives all classes the same weight.
//
// Source: torch.nn.functional.cross_entropy; fastai 1.0.54, layers.py,
// CrossEntropyFlat(axis=1). If all pixels are ignored, these return NaN and
// CrossEntropy returns 0.
type CrossEntropy struct {
	ClassWeights   []float64 `json:"class_weights,omitzero"` // one for each class; the result is the weighted mean
	LabelSmoothing float64   `json:"label_smoothing"`        // in [0, 1): this much of each target is spread over all classes
	IgnoreIndex    *int      `json:"ignore_index,omitzero"`  // the target to ignore, such as 255; nil: none
}

// New returns the loss for a network's output and its number of classes.
func (c CrossEntropy) New(output data.Output, classes int) (Loss, error) {
	h, err := newHead(output, classes, c.IgnoreIndex)
	if err == nil && output == data.Sigmoid {
		err = errors.New("needs softmax over the classes; with a sigmoid for each class, use bce")
	}
	if err == nil {
		err = h.weights("class_weights", c.ClassWeights)
	}
	if err == nil && !(c.LabelSmoothing >= 0 && c.LabelSmoothing < 1) {
		err = fmt.Errorf("label_smoothing %v, wanted at least 0 and less than 1", c.LabelSmoothing)
	}
	if err != nil {
		return nil, fmt.Errorf("loss: cross_entropy: %w", err)
	}
	return crossEntropy{h, c}, nil
}

type crossEntropy struct {
	head
	c CrossEntropy
}

func (crossEntropy) String() string { return "cross_entropy" }

func (l crossEntropy) Forward(scores, targets torch.Tensor) torch.Tensor {
	b := l.prepare(scores, targets)
	var weights torch.Tensor
	if l.c.ClassWeights != nil {
		weights = b.constant(l.c.ClassWeights, int64(l.classes))
	}
	if l.ignore == nil {
		return b.finish(opCrossEntropy.Call(b.x, b.y, weights, reduceMean, noIgnore, l.c.LabelSmoothing))
	}
	sum := opCrossEntropy.Call(b.x, b.y, weights, reduceSum, *l.ignore, l.c.LabelSmoothing)
	if l.c.ClassWeights == nil {
		return b.finish(nn.Div(sum, b.count()))
	}
	of := opIndexSelect.Call(weights, 0, nn.Reshape(b.known(), -1)) // the weight of each pixel
	of = nn.Mul(of, nn.Reshape(b.valid, -1))
	return b.finish(nn.Div(sum, opClampMin.Call(nn.Sum(of), tiny)))
}

// tiny keeps divisors and bases of powers above 0. It is a normal float32
// number.
const tiny = 1e-30
