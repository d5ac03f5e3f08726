package loss

import (
	"errors"
	"fmt"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Lovasz is the Lovász extension of the Jaccard loss, 1 minus intersection over
// union. With data.Softmax it is the Lovász-softmax, the mean over the classes
// that occur in the targets; with data.Sigmoid it is the mean of the Lovász hinge
// over the channels. It sorts the pixels.
//
// Source: M. Berman, https://github.com/bermanmaxim/LovaszSoftmax, as in smp's
// LovaszLoss. For several channels with sigmoids, smp pools their pixels; this
// is the mean of the author's lovasz_hinge over the channels.
type Lovasz struct {
	PerImage    bool `json:"per_image"`             // computed for each image, then the mean over images; otherwise for the whole batch
	CountAbsent bool `json:"count_absent"`          // with softmax: the author's classes="all"
	IgnoreIndex *int `json:"ignore_index,omitzero"` // the target to ignore, such as 255; nil: none
}

// New returns the loss for a network's output and its number of classes.
func (c Lovasz) New(output data.Output, classes int) (Loss, error) {
	h, err := newHead(output, classes, c.IgnoreIndex)
	if err == nil && c.CountAbsent && output == data.Sigmoid {
		err = errors.New("count_absent needs softmax; with sigmoids all classes count")
	}
	if err != nil {
		return nil, fmt.Errorf("loss: lovasz: %w", err)
	}
	return lovasz{h, c}, nil
}

type lovasz struct {
	head
	c Lovasz
}

func (lovasz) String() string { return "lovasz" }

func (l lovasz) Forward(scores, targets torch.Tensor) torch.Tensor {
	b := l.prepare(scores, targets)
	mask := b.masks()
	t := nn.To(mask, b.device, b.dtype)
	var errs torch.Tensor
	if l.output == data.Softmax {
		errs = opAbs.Call(nn.Sub(t, b.probabilities()))
	} else {
		signs := nn.AddScalar(nn.MulScalar(t, 2), -1)
		errs = nn.AddScalar(opNeg.Call(nn.Mul(b.x, signs)), 1)
	}
	if l.ignore != nil {
		// An ignored pixel gets an error of -1, which counts as 0 and is sorted
		// to the end.
		none := nn.Full(b.device, b.dtype, -1)
		errs = opWhere.Call(opUnsqueeze.Call(b.valid, 1), errs, none)
	}
	errs, t = l.flatten(errs), l.flatten(t) // (N, C, P), or (1, C, P) for the batch
	sorted := opSort.CallAll(errs, true, -1, true)
	var gradient, there torch.Tensor
	nn.NoGrad(func() {
		gradient = jaccardGradient(opGather.Call(t, -1, sorted[1]))
		there = nn.To(opGt.Call(opSumDim.Call(t, []int64{-1}), 0), b.device, b.dtype)
	})
	loss := opSumDim.Call(nn.Mul(nn.ReLU(sorted[0]), gradient), []int64{-1}) // (N, C)
	if l.output == data.Sigmoid || l.c.CountAbsent {
		return b.finish(nn.Mean(loss))
	}
	loss = opSumDim.Call(nn.Mul(loss, there), []int64{-1})
	loss = nn.Div(loss, opClampMin.Call(opSumDim.Call(there, []int64{-1}), 1))
	return b.finish(nn.Mean(loss))
}

// flatten reshapes (N, C, H, W) to the pixels of each image, (N, C, P), or of
// the whole batch, (1, C, P).
func (l lovasz) flatten(x torch.Tensor) torch.Tensor {
	s := nn.Shape(x)
	if l.c.PerImage {
		return nn.Reshape(x, s[0], s[1], -1)
	}
	return nn.Reshape(nn.Transpose(x, 0, 1), 1, s[1], -1)
}

// jaccardGradient returns the gradient of the Lovász extension with respect to the
// sorted errors (algorithm 1 of the paper). t holds the targets in the order of
// the errors, along the last dimension. In float32, counts are exact up to 2^24
// pixels.
func jaccardGradient(t torch.Tensor) torch.Tensor {
	s := nn.Shape(t)
	p := s[len(s)-1]
	all := opSumDim.Call(t, []int64{-1}, true)
	intersection := nn.Sub(all, opCumsum.Call(t, -1))
	union := nn.Add(all, opCumsum.Call(nn.AddScalar(opNeg.Call(t), 1), -1))
	jaccard := nn.AddScalar(opNeg.Call(nn.Div(intersection, union)), 1)
	if p == 1 {
		return jaccard
	}
	step := nn.Sub(nn.Narrow(jaccard, -1, 1, p-1), nn.Narrow(jaccard, -1, 0, p-1))
	return opCat.Call([]torch.Tensor{nn.Narrow(jaccard, -1, 0, 1), step}, -1)
}
