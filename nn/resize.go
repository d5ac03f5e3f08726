package nn

import (
	"fmt"
	"math"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

var (
	opAdaptiveAvgPool2d = shim.NewOp("adaptive_avg_pool2d")
	opAMax              = shim.NewOp("amax")
	opLeakyReLU         = shim.NewOp("leaky_relu")
	opGELU              = shim.NewOp("gelu")
)

// A Resize multiplies height and width by a factor and rounds them down. It does not
// average over larger areas: a factor below 1 makes the nearest mode skip pixels, a
// factor below 1/2 the bilinear mode as well.
type Resize struct {
	Factor   float64 // positive
	Bilinear bool    // as ResizeBilinear; otherwise as ResizeNearest
}

// Forward resizes x (N, C, H, W). It panics with an *InputError if x has another number
// of dimensions or the factor is not positive.
func (r Resize) Forward(_ Mode, x torch.Tensor) torch.Tensor {
	size := Shape(x)
	if len(size) != 4 || !(r.Factor > 0) {
		panic(&InputError{"Resize", fmt.Sprintf("input of shape %v by a factor of %v, wanted (N, C, H, W) and a positive one", size, r.Factor)})
	}
	h, w := int64(math.Floor(float64(size[2])*r.Factor)), int64(math.Floor(float64(size[3])*r.Factor))
	if r.Bilinear {
		return ResizeBilinear(x, h, w)
	}
	return ResizeNearest(x, h, w)
}

// Walk shows nothing.
func (Resize) Walk(Walker) {}

func (r Resize) String() string {
	mode := "nearest"
	if r.Bilinear {
		mode = "bilinear"
	}
	return fmt.Sprintf("Upsample(scale_factor=%v, mode=%s)", r.Factor, mode)
}

// A GlobalPool reduces each channel to one value: (N, C, H, W) to (N, C, 1, 1).
type GlobalPool struct {
	Max bool // take the largest value; otherwise the mean
}

// Forward returns the maximum or the mean of each channel of x.
func (p GlobalPool) Forward(_ Mode, x torch.Tensor) torch.Tensor {
	if p.Max {
		return call(opAMax, x, []int64{2, 3}, true)
	}
	return call(opAdaptiveAvgPool2d, x, []int64{1, 1})
}

// Walk shows nothing.
func (GlobalPool) Walk(Walker) {}

func (p GlobalPool) String() string {
	if p.Max {
		return "AdaptiveMaxPool2d(output_size=1)"
	}
	return "AdaptiveAvgPool2d(output_size=1)"
}

// A LeakyReLU multiplies negative values by Slope.
type LeakyReLU struct{ Slope float64 }

// Forward returns x where x is positive, and Slope*x elsewhere.
func (l LeakyReLU) Forward(_ Mode, x torch.Tensor) torch.Tensor { return call(opLeakyReLU, x, l.Slope) }

// Walk shows nothing.
func (LeakyReLU) Walk(Walker) {}

func (l LeakyReLU) String() string { return fmt.Sprintf("LeakyReLU(negative_slope=%v)", l.Slope) }

// A GELU is the Gaussian error linear unit of Hendrycks and Gimpel 2016,
// https://arxiv.org/abs/1606.08415.
type GELU struct{}

// Forward returns x*Phi(x), where Phi is the cumulative distribution function of the
// standard normal distribution.
func (GELU) Forward(_ Mode, x torch.Tensor) torch.Tensor { return call(opGELU, x) }

// Walk shows nothing.
func (GELU) Walk(Walker) {}

func (GELU) String() string { return "GELU()" }
