package nn

import (
	"fmt"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// A ConvTranspose2d is a transposed convolution, which enlarges a feature map from
// (N, In, H, W) to (N, Out, H', W') with H' = (H-1)*stride - 2*padding + kernel.
type ConvTranspose2d struct {
	In, Out, Kernel int64
	weight, bias    torch.Tensor // (In, Out, Kernel, Kernel) and (Out)
	stride, padding int64
}

var opConvTranspose2d = shim.NewOp("conv_transpose2d.input")

// ConvTransposeOptions are the optional settings of a ConvTranspose2d.
type ConvTransposeOptions struct {
	Stride  int64 // in output pixels; 0 means the kernel size, so that windows do not overlap
	Padding int64 // number of rows and columns removed from each side of the result
}

// NewConvTranspose2d returns a transposed convolution with a square kernel; opt may
// be nil. With kernel 2 and nil options it doubles height and width. The initial
// weights are normal with variance 2/fan (see [Kaiming]), where fan is the number of
// input channels times the number of kernel positions that reach one output pixel.
func NewConvTranspose2d(in *Init, inC, outC, kernel int64, opt *ConvTransposeOptions) *ConvTranspose2d {
	stride, padding := kernel, int64(0)
	if opt != nil {
		padding = opt.Padding
		if opt.Stride != 0 {
			stride = opt.Stride
		}
	}
	checkWidths("ConvTranspose2d", inC, outC, kernel, stride)
	reach := max(kernel/stride, 1)
	values := in.kaimingFan(inC*outC*kernel*kernel, inC*reach*reach)
	return &ConvTranspose2d{
		In: inC, Out: outC, Kernel: kernel, stride: stride, padding: padding,
		weight: in.param(values, inC, outC, kernel, kernel), bias: in.param(constant(0, outC), outC),
	}
}

// Forward enlarges x (N, In, H, W). It panics with an *InputError if x has another
// shape.
func (c *ConvTranspose2d) Forward(_ Mode, x torch.Tensor) torch.Tensor {
	checkChannels("ConvTranspose2d", x, c.In)
	return call(opConvTranspose2d, x, c.weight, c.bias, []int64{c.stride, c.stride}, []int64{c.padding, c.padding})
}

// Walk shows the weight and the bias.
func (c *ConvTranspose2d) Walk(w Walker) {
	w.Param("weight", c.weight)
	w.Param("bias", c.bias)
}

func (c *ConvTranspose2d) String() string {
	s := fmt.Sprintf("ConvTranspose2d(%d, %d, kernel_size=(%d, %d), stride=(%d, %d)", c.In, c.Out, c.Kernel, c.Kernel, c.stride, c.stride)
	if c.padding > 0 {
		s += fmt.Sprintf(", padding=(%d, %d)", c.padding, c.padding)
	}
	return s + ")"
}
