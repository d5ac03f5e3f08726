package loss

import (
	"errors"
	"fmt"
	"math"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Focal is cross-entropy that gives less weight to pixels for which the network
// is already sure: the mean over all pixels of -(1-p)^Gamma log(p), where p is
// the probability of the target. With data.Sigmoid, or OneVsRest, p is computed
// from the sigmoid of each channel, and the mean is over pixels and channels.
//
// Source: smp, FocalLoss, for the sigmoid and OneVsRest; and smp's
// losses/_functional.py, softmax_focal_loss_with_logits, for the softmax.
type Focal struct {
	Gamma            float64   `json:"gamma"`                      // at least 0; smp: 2
	Alpha            *float64  `json:"alpha,omitzero"`             // in [0, 1]: factor of pixels in the class, 1-Alpha of others; nil: none
	Normalized       bool      `json:"normalized"`                 // divided by the sum of the (1-p)^Gamma
	ReducedThreshold *float64  `json:"reduced_threshold,omitzero"` // r in (0, 1]: the factor is ((1-p)/r)^Gamma, and 1 where p is less than r; nil: none
	OneVsRest        bool      `json:"one_vs_rest"`                // with softmax: each class against the rest, by a sigmoid
	ClassWeights     []float64 `json:"class_weights,omitzero"`     // one for each channel; for the sigmoid and OneVsRest
	IgnoreIndex      *int      `json:"ignore_index,omitzero"`      // the target to ignore, such as 255; nil: none
}

// DefaultFocal returns the defaults of smp.
func DefaultFocal() Focal { return Focal{Gamma: 2} }

// New returns the loss for a network's output and its number of classes.
func (c Focal) New(output data.Output, classes int) (Loss, error) {
	h, err := newHead(output, classes, c.IgnoreIndex)
	if err == nil {
		err = h.weights("class_weights", c.ClassWeights)
	}
	binary := output == data.Sigmoid || c.OneVsRest
	switch {
	case err != nil:
	case !nonNegative(c.Gamma):
		err = fmt.Errorf("gamma %v, wanted at least 0", c.Gamma)
	case c.Alpha != nil && !(*c.Alpha >= 0 && *c.Alpha <= 1):
		err = fmt.Errorf("alpha %v, wanted 0 to 1", *c.Alpha)
	case c.ReducedThreshold != nil && !(*c.ReducedThreshold > 0 && *c.ReducedThreshold <= 1):
		err = fmt.Errorf("reduced_threshold %v, wanted more than 0 and at most 1", *c.ReducedThreshold)
	case c.Alpha != nil && !binary:
		err = errors.New("alpha needs a sigmoid; with softmax over the classes, set one_vs_rest")
	case c.ClassWeights != nil && !binary:
		err = errors.New("class_weights need a sigmoid; with softmax over the classes, set one_vs_rest")
	}
	if err != nil {
		return nil, fmt.Errorf("loss: focal: %w", err)
	}
	return focal{h, c, binary}, nil
}

type focal struct {
	head
	c      Focal
	binary bool
}

func (focal) String() string { return "focal" }

func (l focal) Forward(scores, targets torch.Tensor) torch.Tensor {
	b := l.prepare(scores, targets)
	var nll, alpha torch.Tensor // -log(p), (N, C, H, W), with C = 1 for the softmax
	if l.binary {
		t := nn.To(b.masks(), b.device, b.dtype)
		nll = opBCE.Call(b.x, t, nil, nil, reduceNone)
		if a := l.c.Alpha; a != nil {
			alpha = nn.AddScalar(nn.MulScalar(t, 2**a-1), 1-*a)
		}
	} else {
		nll = opUnsqueeze.Call(opCrossEntropy.Call(b.x, b.known(), nil, reduceNone), 1)
	}
	focus := l.focus(nll)
	if w := b.weight(); w.T != nil {
		focus = nn.Mul(focus, w)
	}
	loss := nn.Mul(focus, nll)
	if alpha.T != nil {
		loss = nn.Mul(loss, alpha)
	}
	pixels := []int64{0, 2, 3}
	loss = nn.Div(opSumDim.Call(loss, pixels), b.count()) // (C)
	if l.c.Normalized {
		loss = nn.Div(loss, opClampMin.Call(opSumDim.Call(focus, pixels), 1e-6)) // smp's eps
	}
	all := make([]int64, l.channels())
	for c := range all {
		all[c] = int64(c)
	}
	return b.finish(nn.Mean(b.meanOverChannels(loss, all, l.c.ClassWeights)))
}

// focus returns (1-p)^Gamma from -log(p). It computes 1-p without cancellation
// and keeps it above 0, so that the power has a gradient for every Gamma.
func (l focal) focus(nll torch.Tensor) torch.Tensor {
	q := opClampMin.Call(opNeg.Call(opExpm1.Call(opNeg.Call(nll))), tiny)
	if l.c.ReducedThreshold == nil {
		return opPow.Call(q, l.c.Gamma)
	}
	limit := *l.c.ReducedThreshold
	f := opPow.Call(nn.MulScalar(q, 1/limit), l.c.Gamma)
	one := nn.Full(nn.DeviceOf(q), nn.DTypeOf(q), 1)
	return opWhere.Call(opGt.Call(q, 1-limit), one, f)
}

// nonNegative returns whether all values are finite and at least 0.
func nonNegative(values ...float64) bool {
	for _, v := range values {
		if !(v >= 0) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}
