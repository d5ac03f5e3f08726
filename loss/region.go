package loss

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// A Region holds the parameters that Dice, Jaccard and Tversky have in common.
// For each class they are 1 minus
//
//	(TP + Smooth) / (TP + α FP + β FN + Smooth)
//
// with TP = Σ p t, FP = Σ p (1-t) and FN = Σ (1-p) t over the pixels of the batch,
// where p is the probability and t the target, 0 or 1. The result is the mean over
// the classes. A class that does not occur in the targets has loss 0.
type Region struct {
	Smooth       float64   `json:"smooth"`                 // at least 0; smp: 0
	Eps          float64   `json:"eps"`                    // above 0: smallest denominator; smp: 1e-7
	Log          bool      `json:"log"`                    // use minus the logarithm instead of 1 minus
	PerImage     bool      `json:"per_image"`              // computed for each image, then the mean over images; otherwise for the whole batch
	CountAbsent  bool      `json:"count_absent"`           // classes that do not occur in the targets count too; needs Smooth
	Probability  bool      `json:"probability"`            // the scores are already probabilities
	Classes      []int     `json:"classes,omitzero"`       // the classes that count; nil: all with a channel
	ClassWeights []float64 `json:"class_weights,omitzero"` // one for each channel of the scores; nil: the plain mean
	IgnoreIndex  *int      `json:"ignore_index,omitzero"`  // the target to ignore, such as 255; nil: none
}

// DefaultRegion returns the defaults of smp.
func DefaultRegion() Region { return Region{Eps: 1e-7} }

// Dice is 1 minus the soft Dice score: α = β = 1/2. See [Region].
//
// Source: smp, DiceLoss. With CountAbsent and Smooth 1 it equals MONAI's
// DiceLoss.
type Dice struct{ Region }

// DefaultDice returns the defaults of smp.
func DefaultDice() Dice { return Dice{DefaultRegion()} }

// New returns the loss for a network's output and its number of classes.
func (c Dice) New(output data.Output, classes int) (Loss, error) {
	return newRegion("dice", Tversky{c.Region, 0.5, 0.5, 1}, output, classes)
}

// Jaccard is 1 minus the soft intersection over union: α = β = 1. See [Region].
//
// Source: smp, JaccardLoss.
type Jaccard struct{ Region }

// DefaultJaccard returns the defaults of smp.
func DefaultJaccard() Jaccard { return Jaccard{DefaultRegion()} }

// New returns the loss for a network's output and its number of classes.
func (c Jaccard) New(output data.Output, classes int) (Loss, error) {
	return newRegion("jaccard", Tversky{c.Region, 1, 1, 1}, output, classes)
}

// Tversky has separate weights for false positives and false negatives; see
// [Region].
//
// Source: smp, TverskyLoss.
type Tversky struct {
	Region
	Alpha float64 `json:"alpha"` // weight of false positives; smp: 0.5
	Beta  float64 `json:"beta"`  // weight of false negatives; smp: 0.5
	Gamma float64 `json:"gamma"` // above 0: exponent of the mean over the classes; smp: 1
}

// DefaultTversky returns the defaults of smp.
func DefaultTversky() Tversky { return Tversky{DefaultRegion(), 0.5, 0.5, 1} }

// New returns the loss for a network's output and its number of classes.
func (c Tversky) New(output data.Output, classes int) (Loss, error) {
	return newRegion("tversky", c, output, classes)
}

type region struct {
	head
	name     string
	c        Tversky
	channels []int64 // the channels that count, in order
}

func newRegion(name string, c Tversky, output data.Output, classes int) (Loss, error) {
	h, err := newHead(output, classes, c.IgnoreIndex)
	if err == nil {
		err = h.weights("class_weights", c.ClassWeights)
	}
	l := region{head: h, name: name, c: c}
	if err == nil {
		l.channels, err = h.chosen(c.Classes)
	}
	if err == nil && c.ClassWeights != nil {
		sum := 0.0
		for _, k := range l.channels {
			sum += c.ClassWeights[k]
		}
		if sum == 0 {
			err = fmt.Errorf("class_weights %v are 0 for all classes %v", c.ClassWeights, c.Classes)
		}
	}
	switch {
	case err != nil:
	case !nonNegative(c.Smooth, c.Alpha, c.Beta):
		err = fmt.Errorf("smooth %v, alpha %v and beta %v, wanted finite ones of at least 0", c.Smooth, c.Alpha, c.Beta)
	case !nonNegative(c.Eps) || c.Eps == 0:
		err = fmt.Errorf("eps %v, wanted more than 0, such as 1e-7", c.Eps)
	case !nonNegative(c.Gamma) || c.Gamma == 0:
		err = fmt.Errorf("gamma %v, wanted more than 0; 1 changes nothing", c.Gamma)
	case c.CountAbsent && c.Smooth == 0:
		err = errors.New("count_absent with smooth 0 has no gradient for a class that is absent; wanted smooth above 0, such as 1")
	}
	if err != nil {
		return nil, fmt.Errorf("loss: %s: %w", name, err)
	}
	return l, nil
}

// chosen returns the channels of classes, or all channels if classes is nil.
func (h head) chosen(classes []int) ([]int64, error) {
	if classes == nil {
		for c := h.first(); c < h.classes; c++ {
			classes = append(classes, c)
		}
	}
	if len(classes) == 0 {
		return nil, errors.New("no classes, wanted at least one")
	}
	var channels []int64
	for _, c := range classes {
		if c < h.first() || c >= h.classes {
			return nil, fmt.Errorf("classes %v, wanted some of %d to %d (%v)", classes, h.first(), h.classes-1, h.output)
		}
		k := int64(c - h.first())
		if slices.Contains(channels, k) {
			return nil, fmt.Errorf("classes %v: %d occurs twice", classes, c)
		}
		channels = append(channels, k)
	}
	return channels, nil
}

func (l region) String() string { return l.name }

func (l region) Forward(scores, targets torch.Tensor) torch.Tensor {
	b := l.prepare(scores, targets)
	p := b.x
	if !l.c.Probability {
		p = b.probabilities()
	}
	t := nn.To(b.masks(), b.device, b.dtype)
	if w := b.weight(); w.T != nil {
		p = nn.Mul(p, w)
	}
	over := []int64{0, 2, 3}
	if l.c.PerImage {
		over = over[1:]
	}
	tp := opSumDim.Call(nn.Mul(p, t), over) // (C) or (N, C)
	fp := nn.Sub(opSumDim.Call(p, over), tp)
	there := opSumDim.Call(t, over)
	fn := nn.Sub(there, tp)

	above := nn.AddScalar(tp, l.c.Smooth)
	below := nn.Add(above, nn.Add(nn.MulScalar(fp, l.c.Alpha), nn.MulScalar(fn, l.c.Beta)))
	score := nn.Div(above, opClampMin.Call(below, l.c.Eps))
	var loss torch.Tensor
	if l.c.Log {
		loss = opNeg.Call(opLog.Call(opClampMin.Call(score, l.c.Eps)))
	} else {
		loss = nn.AddScalar(opNeg.Call(score), 1)
	}
	if !l.c.CountAbsent {
		loss = nn.Mul(loss, opGt.Call(there, 0))
	}
	if l.c.Classes != nil {
		loss = opIndexSelect.Call(loss, -1, b.index(l.channels))
	}
	loss = b.meanOverChannels(loss, l.channels, l.c.ClassWeights)
	if l.c.Gamma != 1 {
		loss = opPow.Call(opClampMin.Call(loss, tiny), l.c.Gamma)
	}
	return b.finish(nn.Mean(loss))
}

// probabilities returns the softmax or the sigmoid of the scores.
func (b *batch) probabilities() torch.Tensor {
	if b.output == data.Softmax {
		return nn.Softmax(b.x, 1)
	}
	return nn.Sigmoid(b.x)
}

func (b *batch) index(i []int64) torch.Tensor {
	t, err := nn.FromSlice(b.device, i, int64(len(i)))
	if err != nil {
		panic(err)
	}
	return t
}
