package loss

import (
	"errors"
	"fmt"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// BCE is binary cross-entropy, for data.Sigmoid: the mean over all pixels and
// channels of -t log(p) - (1-t) log(1-p), where p is the sigmoid of the score
// and t the target.
//
// Source: torch.nn.functional.binary_cross_entropy_with_logits; smp,
// SoftBCEWithLogitsLoss, except that smp divides by the number of all pixels,
// and BCE by the number of pixels that are not ignored.
type BCE struct {
	PosWeight      []float64 `json:"pos_weight,omitzero"`   // one for each channel: factor of -t log(p)
	LabelSmoothing float64   `json:"label_smoothing"`       // s in [0, 1): t is s instead of 0, 1-s instead of 1
	IgnoreIndex    *int      `json:"ignore_index,omitzero"` // the target to ignore, such as 255; nil: none
}

// New returns the loss for a network's output and its number of classes.
func (c BCE) New(output data.Output, classes int) (Loss, error) {
	h, err := newHead(output, classes, c.IgnoreIndex)
	if err == nil && output == data.Softmax {
		err = errors.New("needs a sigmoid for each class; with softmax over the classes, use cross_entropy")
	}
	if err == nil {
		err = h.weights("pos_weight", c.PosWeight)
	}
	if err == nil && !(c.LabelSmoothing >= 0 && c.LabelSmoothing < 1) {
		err = fmt.Errorf("label_smoothing %v, wanted at least 0 and less than 1", c.LabelSmoothing)
	}
	if err != nil {
		return nil, fmt.Errorf("loss: bce: %w", err)
	}
	return bce{h, c}, nil
}

type bce struct {
	head
	c BCE
}

func (bce) String() string { return "bce" }

func (l bce) Forward(scores, targets torch.Tensor) torch.Tensor {
	b := l.prepare(scores, targets)
	t := nn.To(b.masks(), b.device, b.dtype)
	if s := l.c.LabelSmoothing; s != 0 {
		t = nn.AddScalar(nn.MulScalar(t, 1-2*s), s)
	}
	var pos torch.Tensor
	if l.c.PosWeight != nil {
		pos = b.constant(l.c.PosWeight, int64(l.channels()), 1, 1)
	}
	if l.ignore == nil {
		return b.finish(opBCE.Call(b.x, t, nil, pos, reduceMean))
	}
	sum := opBCE.Call(b.x, t, b.weight(), pos, reduceSum)
	return b.finish(nn.Div(sum, nn.MulScalar(b.count(), float64(l.channels()))))
}
