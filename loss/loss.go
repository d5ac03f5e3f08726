// Package loss has losses for segmentation networks. A loss is made from a
// configuration, which can be stored as JSON, or is a user's own [Func]. Losses
// can be combined in weighted sums.
//
// A loss compares scores with classes. Scores are the output of a network, (N, C,
// H, W), before any softmax or sigmoid; N is the batch, H the height, W the width.
// With [data.Softmax] there is a channel for each class. With [data.Sigmoid] there
// is a channel for each class but the background, which is class 0: channel c is
// class c+1 against all other classes, and a single channel is the usual binary
// form. In both cases targets are class indices, (N, H, W), of int64 or uint8.
//
// The losses and their sources:
//   - [CrossEntropy] and [BCE] as in PyTorch.
//   - [Dice]: Milletari, Navab and Ahmadi 2016, https://arxiv.org/abs/1606.04797.
//   - [Jaccard]: Rahman and Wang 2016, https://doi.org/10.1007/978-3-319-50835-1_22.
//   - [Tversky]: Salehi, Erdogmus and Gholipour 2017, https://arxiv.org/abs/1706.05721;
//     with an exponent, Abraham and Khan 2018, https://arxiv.org/abs/1810.07842.
//   - [Focal]: Lin et al. 2017, https://arxiv.org/abs/1708.02002.
//   - [Lovasz]: Berman, Triki and Blaschko 2018, https://arxiv.org/abs/1705.08790;
//     for the sigmoid, Yu and Blaschko 2015, https://arxiv.org/abs/1512.07797.
//
// Values and gradients equal those of PyTorch 1.13.1 and
// segmentation_models_pytorch 0.6.0 ("smp" below), up to float64 rounding,
// except where a comment says otherwise. testdata/make.py made the reference
// values.
//
// # Numerics
//
// Scores of float16 and bfloat16 are converted to float32 first. Saturated scores,
// batches in which all pixels are ignored, and classes that do not occur give
// finite values and finite gradients.
//
// # Errors
//
// If scores and targets do not fit, a loss panics with an [nn.Error], which
// [nn.Try] turns into an error. On the CPU it also does so for a target that is not
// a class. On other devices, where the check would make the host wait, such a
// target makes the loss NaN, and makes cross-entropy fail an assertion on the
// device.
//
// # Memory
//
// A loss holds no tensors. The tensors that it makes are freed with the caller's
// [nn.Scope].
package loss

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// A Loss compares scores (N, C, H, W) with classes (N, H, W) and returns a tensor
// of one element. Smaller is better.
type Loss interface {
	Forward(scores, targets torch.Tensor) torch.Tensor
	String() string
}

// A Func is a user's own loss.
type Func struct {
	Name string
	F    func(scores, targets torch.Tensor) torch.Tensor
}

// Forward calls f.F.
func (f Func) Forward(scores, targets torch.Tensor) torch.Tensor { return f.F(scores, targets) }

// String returns f.Name.
func (f Func) String() string { return f.Name }

// A Sum is a weighted sum of losses.
type Sum []Weighted

// A Weighted is one term of a Sum.
type Weighted struct {
	Weight float64
	Loss   Loss
}

// Forward returns the sum. It panics if s is empty.
func (s Sum) Forward(scores, targets torch.Tensor) torch.Tensor {
	var sum torch.Tensor
	for i, term := range s {
		l := term.Loss.Forward(scores, targets)
		if term.Weight != 1 {
			l = nn.MulScalar(l, term.Weight)
		}
		if i == 0 {
			sum = l
		} else {
			sum = nn.Add(sum, l)
		}
	}
	if sum.T == nil {
		refuse("a sum of no losses")
	}
	return sum
}

// String returns the sum as text, such as "0.5*cross_entropy + dice".
func (s Sum) String() string {
	terms := make([]string, len(s))
	for i, t := range s {
		if terms[i] = t.Loss.String(); t.Weight != 1 {
			terms[i] = strconv.FormatFloat(t.Weight, 'g', -1, 64) + "*" + terms[i]
		}
	}
	return strings.Join(terms, " + ")
}

// Must returns l, or panics if err is not nil. It is for losses whose
// configuration is part of the program.
func Must(l Loss, err error) Loss {
	if err != nil {
		panic(err)
	}
	return l
}

// refuse panics with an *nn.Error, which nn.Try turns into an error.
func refuse(format string, args ...any) {
	panic(&nn.Error{Msg: "loss: " + fmt.Sprintf(format, args...)})
}

// A head describes the output of the network, for all losses.
type head struct {
	output  data.Output
	classes int
	ignore  *int // the target to ignore; nil for none
}

func newHead(output data.Output, classes int, ignore *int) (head, error) {
	switch {
	case output != data.Softmax && output != data.Sigmoid:
		return head{}, fmt.Errorf("output %v, wanted softmax or sigmoid", output)
	case classes < 2:
		return head{}, fmt.Errorf("%d classes, wanted at least 2, the background among them", classes)
	case ignore != nil && 0 <= *ignore && *ignore < classes:
		return head{}, fmt.Errorf("ignore_index %d is one of the %d classes, 0 to %d; wanted another, such as 255", *ignore, classes, classes-1)
	}
	return head{output, classes, ignore}, nil
}

// first returns the class of channel 0.
func (h head) first() int {
	if h.output == data.Sigmoid {
		return 1
	}
	return 0
}

func (h head) channels() int { return h.classes - h.first() }

// weights checks that there is one valid weight for each channel; nil means no
// weights.
func (h head) weights(name string, w []float64) error {
	if w == nil {
		return nil
	}
	if len(w) != h.channels() {
		return fmt.Errorf("%d %s for %d channels of scores (%v, %d classes), wanted one for each", len(w), name, h.channels(), h.output, h.classes)
	}
	sum := 0.0
	for _, v := range w {
		if !(v >= 0) || math.IsInf(v, 0) {
			return fmt.Errorf("%s %v, wanted finite ones of at least 0", name, w)
		}
		sum += v
	}
	if sum == 0 {
		return fmt.Errorf("%s %v, wanted one above 0", name, w)
	}
	return nil
}

// A batch holds scores and targets that fit each other.
type batch struct {
	head
	device nn.Device
	dtype  nn.DType
	x      torch.Tensor // (N, C, H, W), float32 or float64
	y      torch.Tensor // (N, H, W), int64
	bad    torch.Tensor // whether y has a value that is not a class, on devices other than the CPU
	// (N, H, W) of bool, the pixels that are not ignored; empty if none can be.
	valid torch.Tensor
}

func (h head) prepare(scores, targets torch.Tensor) batch {
	s, t := nn.Shape(scores), nn.Shape(targets)
	if len(s) != 4 || len(t) != 3 || s[0] != t[0] || !slices.Equal(s[2:], t[1:]) || s[1] != int64(h.channels()) {
		refuse("scores %s for targets %s, wanted (N, %d, H, W) for (N, H, W): %v over %d classes",
			extents(s), extents(t), h.channels(), h.output, h.classes)
	}
	b := batch{head: h, device: nn.DeviceOf(scores), dtype: nn.DTypeOf(scores), x: scores, y: targets}
	switch b.dtype {
	case nn.Float, nn.Double:
	case nn.Half, nn.BFloat16:
		b.dtype = nn.Float
		b.x = nn.To(scores, b.device, nn.Float)
	default:
		refuse("scores of %v, wanted a floating type", b.dtype)
	}
	switch d := nn.DTypeOf(targets); d {
	case nn.Long, nn.Byte:
	default:
		refuse("targets of %v, wanted class indices of int64 or uint8", d)
	}
	if d := nn.DeviceOf(targets); d != b.device {
		refuse("scores on %v, targets on %v", b.device, d)
	}
	b.y = nn.To(targets, b.device, nn.Long)
	if h.ignore != nil {
		b.valid = opNe.Call(b.y, *h.ignore)
	}
	b.checkTargets()
	return b
}

// checkTargets checks that all targets are classes; see the package comment.
func (b *batch) checkTargets() {
	if slices.Contains(nn.Shape(b.y), 0) {
		refuse("an empty batch: targets %s", extents(nn.Shape(b.y)))
	}
	ends := opAminmax.CallAll(b.known())
	if b.device != nn.CPU {
		b.bad = opOr.Call(opLt.Call(ends[0], 0), opGe.Call(ends[1], b.classes))
		return
	}
	for _, end := range ends {
		v, err := nn.Item(end)
		if err != nil {
			panic(err)
		}
		if v < 0 || int(v) >= b.classes {
			but := ""
			if b.ignore != nil {
				but = fmt.Sprintf(", or %d to be ignored", *b.ignore)
			}
			refuse("a target is class %d, wanted 0 to %d%s", int(v), b.classes-1, but)
		}
	}
}

// finish returns the loss, or NaN if a target is not a class.
func (b *batch) finish(l torch.Tensor) torch.Tensor {
	if b.bad.T == nil {
		return l
	}
	return opWhere.Call(b.bad, nn.Full(b.device, b.dtype, math.NaN()), l)
}

// known returns the targets with class 0 in place of ignored ones.
func (b *batch) known() torch.Tensor {
	if b.ignore == nil {
		return b.y
	}
	return nn.Mul(b.y, b.valid)
}

// masks returns the target of each channel as bool, (N, C, H, W).
func (b *batch) masks() torch.Tensor {
	classes := make([]int64, b.channels())
	for c := range classes {
		classes[c] = int64(b.first() + c)
	}
	all, err := nn.FromSlice(b.device, classes, int64(len(classes)), 1, 1)
	if err != nil {
		panic(err)
	}
	return opEq.Call(opUnsqueeze.Call(b.y, 1), all)
}

// weight returns 1 for pixels that count and 0 for ignored ones, in the type of the
// scores, (N, 1, H, W); an empty tensor if all count.
func (b *batch) weight() torch.Tensor {
	if b.ignore == nil {
		return torch.Tensor{}
	}
	return nn.To(opUnsqueeze.Call(b.valid, 1), b.device, b.dtype)
}

// count returns the number of pixels that count, at least 1.
func (b *batch) count() torch.Tensor {
	if b.ignore == nil {
		s := nn.Shape(b.y)
		return nn.Full(b.device, b.dtype, float64(s[0]*s[1]*s[2]))
	}
	return nn.To(opClampMin.Call(nn.Sum(b.valid), 1), b.device, b.dtype)
}

// constant returns a tensor of values with the device and type of the scores.
func (b *batch) constant(values []float64, shape ...int64) torch.Tensor {
	t, err := nn.FromSlice(b.device, values, shape...)
	if err != nil {
		panic(err)
	}
	return nn.To(t, b.device, b.dtype)
}

// meanOverChannels returns the mean over the last dimension, the channels,
// weighted if there are weights.
func (b *batch) meanOverChannels(l torch.Tensor, channels []int64, weights []float64) torch.Tensor {
	if weights == nil {
		return opMeanDim.Call(l, []int64{-1})
	}
	chosen, sum := make([]float64, len(channels)), 0.0
	for i, c := range channels {
		chosen[i] = weights[c]
		sum += chosen[i]
	}
	w := b.constant(chosen, int64(len(chosen)))
	return nn.MulScalar(opSumDim.Call(nn.Mul(l, w), []int64{-1}), 1/sum)
}

// extents formats a shape, such as "(2, 3, 64, 64)".
func extents(shape []int64) string {
	text := make([]string, len(shape))
	for i, d := range shape {
		text[i] = strconv.FormatInt(d, 10)
	}
	return "(" + strings.Join(text, ", ") + ")"
}
