package nn

import (
	"fmt"
	"math"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// WarpParams describes how a [Warp] changes one image and its mask.
type WarpParams struct {
	// Sampling is a row-major 3x3 matrix S: the pixel of the result at (u, v) takes
	// the value of the source at
	//
	//	x = (S[0]u + S[1]v + S[2]) / (S[6]u + S[7]v + S[8])
	//	y = (S[3]u + S[4]v + S[5]) / (S[6]u + S[7]v + S[8])
	//
	// x and u point to the right, y and v down. On each axis, -1 is the centre of the
	// first pixel and 1 the centre of the last.
	Sampling [9]float64

	// Lighting: a value p of an image, in [0, 1], becomes
	// sigmoid((logit(p) + LogitShift) * LogitScale), where p is first clamped to
	// [1e-7, 1-1e-7]. A mask has no lighting.
	LogitShift float64 // 0 means no change of brightness
	LogitScale float64 // positive; 1 means no change of contrast, and so does 0
}

// A WarpPadding says which values lie outside of an image.
type WarpPadding int

const (
	WarpReflection WarpPadding = iota // the image mirrored about its outermost pixel centres
	WarpBorder                        // the outermost pixels, repeated
	WarpZeros                         // zero
)

// A Warp applies a geometric transform and a change of lighting to each image of a
// batch, with one grid sample on the images' device. The masks get the same geometric
// transform. It computes in float64, so that images differ from those of package
// augment, which loops over the pixels, only by float32 rounding, and masks choose the
// same nearest pixel. A Warp is meant for a GPU; on the CPU package augment is faster.
//
// Source: fastai 1.0.54, vision/image.py; torch's grid_sample with
// align_corners=True.
type Warp struct {
	n, h, w      int64
	padding      int
	grid         torch.Tensor // (N, H, W, 2) float64
	lit          torch.Tensor // (N, 1, 1, 1) bool: which images have lighting; the zero torch.Tensor if none has
	scale, shift torch.Tensor // (N, 1, 1, 1) float64: p is 1 / (1 + shift*(1/p - 1)^scale)
}

var (
	opLinspace    = shim.NewOp("linspace")
	opExpand      = shim.NewOp("expand")
	opGridSampler = shim.NewOp("grid_sampler")
	opClamp       = shim.NewOp("clamp")
	opReciprocal_ = shim.NewOp("reciprocal_")
	opMul_        = shim.NewOp("mul_.Tensor")
	opPow_        = shim.NewOp("pow_.Tensor")
	opWhere       = shim.NewOp("where.self")
)

// NewWarp prepares the transforms of len(params) images into images of h rows and w
// columns. Its tensors are on d. It should be made in the scope of the batch, which
// then frees it. It panics if there are no params, or if h or w is below 1.
func NewWarp(d Device, params []WarpParams, h, w int64, padding WarpPadding) *Warp {
	if len(params) == 0 || h < 1 || w < 1 {
		panic(fmt.Errorf("nn: NewWarp: %d images to %dx%d pixels, wanted at least one of each", len(params), h, w))
	}
	warp := &Warp{n: int64(len(params)), h: h, w: w}
	switch padding {
	case WarpReflection:
		warp.padding = 2 // at::native::detail::GridSamplerPadding
	case WarpBorder:
		warp.padding = 1
	case WarpZeros:
		warp.padding = 0
	default:
		panic(fmt.Errorf("nn: NewWarp: unknown WarpPadding %d", padding))
	}
	warp.aim(d, params)
	warp.light(d, params)
	return warp
}

// aim computes the position in the source of each pixel of the result.
func (p *Warp) aim(d Device, params []WarpParams) {
	transposed := make([]float64, 0, 9*len(params))
	for _, q := range params {
		s := q.Sampling
		transposed = append(transposed, s[0], s[3], s[6], s[1], s[4], s[7], s[2], s[5], s[8])
	}
	axis := func(n int64) torch.Tensor { return call(opLinspace, -1, 1, n, int(Double), shim.None{}, d.arg()) }
	u := call(opExpand, Reshape(axis(p.w), 1, p.w), []int64{p.h, p.w})
	v := call(opExpand, Reshape(axis(p.h), p.h, 1), []int64{p.h, p.w})
	points := call(opStack, []torch.Tensor{u, v, Full(d, Double, 1, p.h, p.w)}, 2) // (H, W, 3)
	at := MatMul(Reshape(points, 1, p.h*p.w, 3), vector(d, transposed, p.n, 3, 3)) // (N, HW, 3)
	p.grid = Reshape(Div(Narrow(at, 2, 0, 2), Narrow(at, 2, 2, 1)), p.n, p.h, p.w, 2)
}

func (p *Warp) light(d Device, params []WarpParams) {
	scales, shifts, lit := make([]float64, p.n), make([]float64, p.n), make([]bool, p.n)
	any := false
	for i, q := range params {
		scales[i] = q.LogitScale
		if scales[i] == 0 {
			scales[i] = 1
		}
		shifts[i] = math.Exp(-q.LogitShift * scales[i])
		lit[i] = q.LogitShift != 0 || scales[i] != 1
		any = any || lit[i]
	}
	if any {
		p.scale, p.shift, p.lit = vector(d, scales, p.n, 1, 1, 1), vector(d, shifts, p.n, 1, 1, 1), vector(d, lit, p.n, 1, 1, 1)
	}
}

func vector[N Number](d Device, values []N, shape ...int64) torch.Tensor {
	t, err := FromSlice(d, values, shape...)
	must(err)
	return t
}

// Images returns the transformed images, (N, C, H, W) in float32. The input x is
// (N, C, h, w) with values in [0, 1]; h, w and the element type may be any. Each pixel
// is interpolated between the nearest four.
func (p *Warp) Images(x torch.Tensor) torch.Tensor {
	x = p.sample(x, 0)
	if p.lit.T != nil {
		// float32 numbers: fastai 1.0.54, vision/image.py, logit_
		const darkest, lightest = float64(float32(1e-7)), float64(float32(1 - 1e-7))
		y := call(opClamp, x, darkest, lightest)
		run(opReciprocal_, y)
		run(opAddScalar_, y, -1)
		run(opPow_, y, p.scale)
		run(opMul_, y, p.shift)
		run(opAddScalar_, y, 1)
		run(opReciprocal_, y)
		x = call(opWhere, p.lit, y, x)
	}
	return To(x, DeviceOf(x), Float)
}

// Masks returns the transformed masks, (N, C, H, W) in the element type of the input y
// (N, C, h, w). Each pixel is a copy of the nearest one; halves are rounded to even.
// Lighting does not change masks.
func (p *Warp) Masks(y torch.Tensor) torch.Tensor {
	return To(p.sample(y, 1), DeviceOf(y), DTypeOf(y))
}

func (p *Warp) sample(x torch.Tensor, interpolation int) torch.Tensor {
	return call(opGridSampler, To(x, DeviceOf(x), Double), p.grid, interpolation, p.padding, true)
}
