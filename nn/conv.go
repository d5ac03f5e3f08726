package nn

import (
	"fmt"

	torch "github.com/wangkuiyi/gotorch"
)

// ConvOptions are what a convolution may have beside its sizes.
type ConvOptions struct {
	Stride  int64   // 0 means 1
	Padding int64   // on each side; the zero value pads nothing
	NoBias  bool    // no added constant per output channel
	Init    Kaiming // the law of the initial weights; biases start at 0
	Norm    Norm    // NormWeight or NormSpectral; the other kinds leave the kernel alone
	ICNR    int64   // r > 1 starts groups of r*r output channels equal; see PixelShuffleICNR
}

// A Conv2d is a two-dimensional convolution: (N, In, H, W) to (N, Out, H', W')
// with H' = (H + 2*padding - kernel)/stride + 1.
type Conv2d struct {
	In, Out, Kernel int64
	Bias            torch.Tensor // (Out), without a handle if there is none
	weight          weight
	stride, padding int64
}

// NewConv2d returns a convolution with a square kernel; opt may be nil.
func NewConv2d(in *Init, inC, outC, kernel int64, opt *ConvOptions) *Conv2d {
	checkWidths("Conv2d", inC, outC, kernel)
	o := ConvOptions{}
	if opt != nil {
		o = *opt
	}
	c := &Conv2d{In: inC, Out: outC, Kernel: kernel, stride: max(o.Stride, 1), padding: o.Padding}
	var values []float32
	if o.ICNR > 1 {
		values = in.icnr(outC, inC, kernel, o.ICNR)
	} else {
		values = in.kaiming(o.Init, outC, inC, kernel, kernel)
	}
	c.weight = newWeight(in, o.Norm, values, outC, inC, kernel, kernel)
	if !o.NoBias {
		c.Bias = in.param(constant(0, outC), outC)
	}
	return c
}

// Forward convolves x.
func (c *Conv2d) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	return Conv(x, c.Weight(mode), c.Bias, c.stride, c.padding)
}

// Weight returns the kernel in effect, (Out, In, Kernel, Kernel): the parameter
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
	if c.Bias.T == nil {
		s += ", bias=False"
	}
	return s + ")"
}
