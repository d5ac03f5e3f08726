package nn

import (
	"fmt"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// ConvOptions are the optional settings of a convolution.
type ConvOptions struct {
	Stride  int64 // in pixels; 0 means 1
	Padding int64 // pixels of zeros added on each side; the zero value adds none
	// Dilation is the distance between neighbouring pixels under the kernel; 0 means 1.
	Dilation int64
	// Groups is the number of independent convolutions into which the input and output
	// channels are divided; 0 means 1. It must divide both numbers of channels.
	Groups int64
	NoBias bool    // no bias is added to the output channels
	Init   Kaiming // the distribution of the initial weights; biases start at 0
	Norm   Norm    // NormWeight or NormSpectral; the other kinds do not change the kernel
	ICNR   int64   // r > 1: groups of r*r output channels start with equal weights; see PixelShuffleICNR
}

// A Conv2d is a two-dimensional convolution: (N, In, H, W) to (N, Out, H', W')
// with H' = (H + 2*padding - dilation*(kernel-1) - 1)/stride + 1.
type Conv2d struct {
	In, Out, Kernel  int64
	Bias             torch.Tensor // (Out); the zero torch.Tensor if there is no bias
	weight           weight
	stride, padding  int64
	dilation, groups int64
}

// NewConv2d returns a convolution with a square kernel of kernel x kernel pixels; opt
// may be nil. It panics if inC, outC or kernel is below 1, or if opt.Groups does not
// divide inC and outC.
func NewConv2d(in *Init, inC, outC, kernel int64, opt *ConvOptions) *Conv2d {
	checkWidths("Conv2d", inC, outC, kernel)
	o := ConvOptions{}
	if opt != nil {
		o = *opt
	}
	c := &Conv2d{
		In: inC, Out: outC, Kernel: kernel,
		stride: max(o.Stride, 1), padding: o.Padding, dilation: max(o.Dilation, 1), groups: checkGroups("Conv2d", o.Groups, inC, outC),
	}
	seen := inC / c.groups // number of input channels that an output channel depends on
	var values []float32
	if o.ICNR > 1 {
		values = in.icnr(outC, seen, kernel, o.ICNR)
	} else {
		values = in.kaiming(o.Init, outC, seen, kernel, kernel)
	}
	c.weight = newWeight(in, o.Norm, values, outC, seen, kernel, kernel)
	if !o.NoBias {
		c.Bias = in.param(constant(0, outC), outC)
	}
	return c
}

// Forward convolves x (N, In, H, W). It panics with an *InputError if x has another
// shape.
func (c *Conv2d) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	c.checkInput(x)
	return conv2d(x, fit(x, c.Weight(mode), c.In), c.Bias, c.stride, c.padding, c.dilation, c.groups)
}

func conv2d(x, w, b torch.Tensor, stride, padding, dilation, groups int64) torch.Tensor {
	y, err := shim.Conv2d(x, w, b, stride, padding, dilation, groups)
	must(err)
	return y
}

// checkInput panics with an *InputError unless x is (N, In, H, W), or a widened map.
func (c *Conv2d) checkInput(x torch.Tensor) {
	if c.groups != 1 || len(Shape(x)) != 4 || !isWidened(x, c.In) {
		checkChannels("Conv2d", x, c.In)
	}
}

// checkGroups returns the number of groups, 1 for n = 0, and panics if it does not
// divide each number of channels.
func checkGroups(layer string, n int64, channels ...int64) int64 {
	n = max(n, 1)
	for _, c := range channels {
		if c%n != 0 {
			panic(fmt.Errorf("nn: %s: %d groups do not divide %d channels", layer, n, c))
		}
	}
	return n
}

// checkChannels panics with an *InputError unless x is (N, c, H, W).
func checkChannels(layer string, x torch.Tensor, c int64) {
	if size := Shape(x); len(size) != 4 || size[1] != c {
		panic(&InputError{layer, fmt.Sprintf("input of shape %v, wanted (N, %d, H, W)", size, c)})
	}
}

// Weight returns the kernel that Forward uses, (Out, In/groups, Kernel, Kernel): the
// parameter itself, or the kernel that a weight norm or spectral norm computes from
// its parameters. A spectral norm improves its singular vectors at each call in Train.
func (c *Conv2d) Weight(mode Mode) torch.Tensor { return c.weight.value(mode) }

// Conv convolves x (N, In, H, W) with a weight (Out, In, kh, kw) and adds bias (Out),
// if it is not the zero torch.Tensor.
func Conv(x, weight, bias torch.Tensor, stride, padding int64) torch.Tensor {
	size := Shape(weight)
	const multiple = 8 // of output channels; others are 1.3 to 3 times as slow on a GPU
	more := -size[0] & (multiple - 1)
	if more == 0 || !fused(x) {
		return conv2d(x, fit(x, weight, size[1]), bias, stride, padding, 1, 1)
	}
	weight = padded(weight, more, 0)
	if bias.T != nil {
		bias = padded(bias, more, 0)
	}
	return Narrow(conv2d(x, fit(x, weight, size[1]), bias, stride, padding, 1, 1), 1, 0, size[0])
}

// Walk shows the weight and the bias.
func (c *Conv2d) Walk(w Walker) {
	c.weight.walk(w, func() {
		if c.Bias.T != nil {
			w.Param("bias", c.Bias)
		}
	})
}

func (c *Conv2d) String() string {
	s := fmt.Sprintf("Conv2d(%d, %d, kernel_size=(%d, %d), stride=(%d, %d)", c.In, c.Out, c.Kernel, c.Kernel, c.stride, c.stride)
	if c.padding > 0 {
		s += fmt.Sprintf(", padding=(%d, %d)", c.padding, c.padding)
	}
	if c.dilation > 1 {
		s += fmt.Sprintf(", dilation=(%d, %d)", c.dilation, c.dilation)
	}
	if c.groups > 1 {
		s += fmt.Sprintf(", groups=%d", c.groups)
	}
	if c.Bias.T == nil {
		s += ", bias=False"
	}
	return s + ")"
}
