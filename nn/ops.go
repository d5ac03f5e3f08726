package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

var (
	opAdd          = shim.NewOp("add.Tensor")
	opAddScalar    = shim.NewOp("add.Scalar")
	opMul          = shim.NewOp("mul.Tensor")
	opMulScalar    = shim.NewOp("mul.Scalar")
	opDiv          = shim.NewOp("div.Tensor")
	opSub          = shim.NewOp("sub.Tensor")
	opReLU         = shim.NewOp("relu")
	opReLU_        = shim.NewOp("relu_")
	opSigmoid      = shim.NewOp("sigmoid")
	opSoftmax      = shim.NewOp("softmax.int")
	opCat          = shim.NewOp("cat")
	opReshape      = shim.NewOp("reshape")
	opTranspose    = shim.NewOp("transpose.int")
	opNarrow       = shim.NewOp("narrow")
	opSelect       = shim.NewOp("select.int")
	opFlip         = shim.NewOp("flip")
	opDetach       = shim.NewOp("detach")
	opSum          = shim.NewOp("sum")
	opMean         = shim.NewOp("mean")
	opBilinear     = shim.NewOp("upsample_bilinear2d")
	opNearest      = shim.NewOp("upsample_nearest2d")
	opMaxPool2d    = shim.NewOp("max_pool2d")
	opAvgPool2d    = shim.NewOp("avg_pool2d")
	opPixelShuffle = shim.NewOp("pixel_shuffle")
)

// Add returns a + b.
func Add(a, b torch.Tensor) torch.Tensor { return call(opAdd, a, b) }

// AddScalar returns a + v.
func AddScalar(a torch.Tensor, v float64) torch.Tensor { return call(opAddScalar, a, v) }

// Mul returns a * b, element by element.
func Mul(a, b torch.Tensor) torch.Tensor { return call(opMul, a, b) }

// MulScalar returns a * v.
func MulScalar(a torch.Tensor, v float64) torch.Tensor { return call(opMulScalar, a, v) }

// Sub returns a - b.
func Sub(a, b torch.Tensor) torch.Tensor { return call(opSub, a, b) }

// Div returns a / b, element by element.
func Div(a, b torch.Tensor) torch.Tensor { return call(opDiv, a, b) }

// ReLU returns max(x, 0).
func ReLU(x torch.Tensor) torch.Tensor { return call(opReLU, x) }

// ReLUInPlace overwrites x with max(x, 0) and returns it. No other operation, nor its
// backward pass, may need the old values of x.
func ReLUInPlace(x torch.Tensor) torch.Tensor { return call(opReLU_, x) }

// Sigmoid returns 1 / (1 + exp(-x)).
func Sigmoid(x torch.Tensor) torch.Tensor { return call(opSigmoid, x) }

// Softmax returns exp(x), normalized so that the sum along dim is 1.
func Softmax(x torch.Tensor, dim int64) torch.Tensor { return call(opSoftmax, x, dim, shim.None{}) }

// Cat concatenates tensors along their channels (dimension 1).
func Cat(xs ...torch.Tensor) torch.Tensor { return call(opCat, xs, 1) }

// MatMul returns the matrix product over the last two dimensions.
func MatMul(a, b torch.Tensor) torch.Tensor {
	y, err := shim.MatMul(a, b)
	must(err)
	return y
}

// Reshape returns the elements of x in another shape. One extent may be -1: it is
// then computed from the others.
func Reshape(x torch.Tensor, shape ...int64) torch.Tensor { return call(opReshape, x, shape) }

// Transpose returns x with the dimensions a and b exchanged.
func Transpose(x torch.Tensor, a, b int64) torch.Tensor { return call(opTranspose, x, a, b) }

// Narrow returns the part of x from index start to start+length-1 of dim, as a view.
func Narrow(x torch.Tensor, dim, start, length int64) torch.Tensor {
	return call(opNarrow, x, dim, start, length)
}

// Select returns the part of x at one index of dim, as a view without that dimension.
func Select(x torch.Tensor, dim, index int64) torch.Tensor { return call(opSelect, x, dim, index) }

// FlipLR mirrors images left to right (reverses the last dimension).
func FlipLR(x torch.Tensor) torch.Tensor { return call(opFlip, x, []int64{-1}) }

// Detach returns the values of x without their history: no gradient flows back
// through the result.
func Detach(x torch.Tensor) torch.Tensor { return call(opDetach, x) }

// Sum returns the sum of all elements.
func Sum(x torch.Tensor) torch.Tensor { return call(opSum, x) }

// Mean returns the mean of all elements.
func Mean(x torch.Tensor) torch.Tensor { return call(opMean, x) }

// ResizeBilinear resizes images (N, C, H, W) to h rows and w columns by bilinear
// interpolation, with the outer edges of the images aligned (align_corners=False).
func ResizeBilinear(x torch.Tensor, h, w int64) torch.Tensor {
	if DeviceOf(x).CUDA() {
		y, err := shim.ResizeBilinear(x, h, w)
		must(err)
		return y
	}
	return call(opBilinear, x, []int64{h, w}, false)
}

// ResizeNearest resizes images (N, C, H, W) to h rows and w columns. Each pixel is a
// copy of one input pixel.
func ResizeNearest(x torch.Tensor, h, w int64) torch.Tensor {
	return call(opNearest, x, []int64{h, w})
}
