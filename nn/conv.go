package nn

import (
	"fmt"

	torch "github.com/wangkuiyi/gotorch"
)

// ConvOptions are the optional settings of a convolution.
type ConvOptions struct {
	Stride  int64 // 0 means 1
	Padding int64 // on each side; the zero value pads nothing
	// Dilation is the distance between the pixels that a kernel sees; 0 means 1.
	Dilation int64
	// Groups divides input and output channels into as many convolutions side by
	// side; 0 means 1. It must divide both.
	Groups int64
	NoBias bool    // no added constant per output channel
	Init   Kaiming // the law of the initial weights; biases start at 0
	Norm   Norm    // NormWeight or NormSpectral; the other kinds leave the kernel alone
	ICNR   int64   // r > 1 starts groups of r*r output channels equal; see PixelShuffleICNR
}

// A Conv2d is a two-dimensional convolution: (N, In, H, W) to (N, Out, H', W')
// with H' = (H + 2*padding - dilation*(kernel-1) - 1)/stride + 1.
type Conv2d struct {
	In, Out, Kernel  int64
	Bias             torch.Tensor // (Out), without a handle if there is none
	weight           weight
	stride, padding  int64
	dilation, groups int64
}

// NewConv2d returns a convolution with a square kernel; opt may be nil.
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
	seen := inC / c.groups // input channels of an output channel
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

// Forward convolves x.
func (c *Conv2d) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	checkChannels("Conv2d", x, c.In)
	return call(opConv2d, x, c.Weight(mode), c.Bias, []int64{c.stride, c.stride}, []int64{c.padding, c.padding},
		[]int64{c.dilation, c.dilation}, c.groups)
}

// checkGroups returns how many groups n means, and panics if they do not divide
// the channels.
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

// Weight returns the kernel in effect, (Out, In/groups, Kernel, Kernel): the parameter
// itself, or what the weight's norm makes of its parameters. A spectral norm
// improves its singular vectors at each call in Train.
func (c *Conv2d) Weight(mode Mode) torch.Tensor { return c.weight.value(mode) }

// Conv convolves x with a weight (Out, In, kh, kw); bias may have no handle.
func Conv(x, weight, bias torch.Tensor, stride, padding int64) torch.Tensor {
	return call(opConv2d, x, weight, bias, []int64{stride, stride}, []int64{padding, padding})
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
