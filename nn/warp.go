package nn

import (
	"fmt"
	"slices"

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

	Padding WarpPadding // what is sampled outside of the image

	// AreaH and AreaW: if positive, the image, but not the mask, is averaged to that
	// many rows and columns before it is sampled (torch's adaptive_avg_pool2d).
	AreaH, AreaW int64

	// Rows and Cols, if not nil, name the source row of each row of the result and the
	// source column of each column, from 0. The mask is then copied from these pixels
	// instead of being sampled, and with Copy the image too. Sampling must be set even so.
	Rows, Cols []int
	Copy       bool

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

// paddingOf has libtorch's number of each padding: at::native::detail::GridSamplerPadding.
var paddingOf = []int{WarpReflection: 2, WarpBorder: 1, WarpZeros: 0}

// A Warp applies a geometric transform and a change of lighting to each image of a
// batch on its device, and the same geometric transform to the masks. It computes in
// float64, so that images differ from those of package augment, which loops over the
// pixels, only by float32 rounding, and masks choose the same nearest pixel, except where
// two are equally near and rounding decides. Copied pixels are exact. A Warp is meant for a GPU; on the CPU package augment is faster.
//
// Source: fastai 1.0.54, vision/image.py; torch's grid_sample with
// align_corners=True.
type Warp struct {
	n, h, w       int64
	images, masks []warpStep
	grid          torch.Tensor // (N, H, W, 2) float64; not set if nothing is sampled
	rows, cols    torch.Tensor // (N, 1, H, 1) and (N, 1, 1, W) int64; not set if nothing is copied
	ends          [2]int64     // the height and width of the smallest image that has these rows and columns
	light         *warpLight   // nil if no image has lighting
}

// A warpStep makes the images of a batch in one way.
type warpStep struct {
	warpWay
	of *torch.Tensor // (N, 1, 1, 1) float64: 1 for the images that are made in this way, otherwise 0
}

type warpWay struct {
	copy         bool
	padding      int
	areaH, areaW int64
}

// A warpLight holds (N, 1, 1, 1) float64 tensors: p becomes
// sigmoid(logit(clamp(p, darkest, lightest)) * scale + shift).
type warpLight struct{ darkest, lightest, scale, shift *torch.Tensor }

var (
	opExpand      = shim.NewOp("expand")
	opGather      = shim.NewOp("gather")
	opGridSampler = shim.NewOp("grid_sampler")
	opAverage     = shim.NewOp("adaptive_avg_pool2d")
	opClamp       = shim.NewOp("clamp.Tensor")
	opLogit_      = shim.NewOp("logit_")
	opAddCMul     = shim.NewOp("addcmul")
	opSigmoid_    = shim.NewOp("sigmoid_")
	opWhere       = shim.NewOp("where.self")
)

// NewWarp prepares the transforms of len(params) images into images of h rows and w
// columns. Its tensors are on d, to which all numbers go in one copy. It should be made
// in the scope of the batch, which then frees it. It panics if there are no params, if h
// or w is below 1, if a padding is unknown, or if the lengths of Rows and Cols are not
// h and w where they are needed.
func NewWarp(d Device, params []WarpParams, h, w int64) *Warp {
	if len(params) == 0 || h < 1 || w < 1 {
		panic(fmt.Errorf("nn: NewWarp: %d images to %dx%d pixels, wanted at least one of each", len(params), h, w))
	}
	for i := range params {
		params[i].check(i, h, w)
	}
	p := &Warp{n: int64(len(params)), h: h, w: w}
	up := &upload{}
	p.images, p.masks = up.steps(params, (*WarpParams).imageWay), up.steps(params, (*WarpParams).maskWay)
	sampled, copied := false, false
	for _, s := range slices.Concat(p.images, p.masks) {
		sampled, copied = sampled || !s.copy, copied || s.copy
	}
	aim, pick := func() {}, func() {}
	if sampled {
		aim = p.aim(up, params)
	}
	if copied {
		pick = p.pick(d, up, params)
	}
	p.light = up.light(params)
	up.run(d)
	aim()
	pick()
	return p
}

func (q *WarpParams) check(i int, h, w int64) {
	if q.Padding < 0 || int(q.Padding) >= len(paddingOf) {
		panic(fmt.Errorf("nn: NewWarp: image %d has unknown WarpPadding %d", i, q.Padding))
	}
	for _, v := range slices.Concat(q.Rows, q.Cols) {
		if v < 0 {
			panic(fmt.Errorf("nn: NewWarp: image %d copies from row or column %d; they are counted from 0", i, v))
		}
	}
	if (q.Rows != nil || q.Cols != nil || q.Copy) && (int64(len(q.Rows)) != h || int64(len(q.Cols)) != w) {
		panic(fmt.Errorf("nn: NewWarp: image %d has %d rows and %d columns to copy, wanted %d and %d", i, len(q.Rows), len(q.Cols), h, w))
	}
}

func (q *WarpParams) imageWay() warpWay {
	if q.Copy {
		return warpWay{copy: true}
	}
	return warpWay{padding: paddingOf[q.Padding], areaH: q.AreaH, areaW: q.AreaW}
}

func (q *WarpParams) maskWay() warpWay {
	if q.Rows != nil {
		return warpWay{copy: true}
	}
	return warpWay{padding: paddingOf[q.Padding]}
}

// steps returns the steps that make all images in their ways.
func (u *upload) steps(params []WarpParams, way func(*WarpParams) warpWay) (steps []warpStep) {
	ways := make([]warpWay, len(params))
	for i := range params {
		ways[i] = way(&params[i])
		if !slices.ContainsFunc(steps, func(s warpStep) bool { return s.warpWay == ways[i] }) {
			steps = append(steps, warpStep{warpWay: ways[i]})
		}
	}
	for i := range steps[1:] {
		s := &steps[i+1] // the first step makes all images, the others replace some
		of := make([]float64, len(params))
		for j, w := range ways {
			if w == s.warpWay {
				of[j] = 1
			}
		}
		s.of = u.add(of, int64(len(params)), 1, 1, 1)
	}
	return steps
}

// aim adds the numbers of the positions to sample at, and returns a function that
// computes the positions. The three components of S(u, v, 1) are sums of a part for the
// row and one for the column.
func (p *Warp) aim(up *upload, params []WarpParams) func() {
	at := func(i, n int64) float64 { return float64(2*i-(n-1)) / float64(max(n-1, 1)) }
	rows, cols := make([]float64, 0, 3*p.n*p.h), make([]float64, 0, 3*p.n*p.w)
	for i := range params {
		s := &params[i].Sampling
		for r := range p.h {
			v := at(r, p.h)
			rows = append(rows, s[1]*v+s[2], s[4]*v+s[5], s[7]*v+s[8])
		}
		for c := range p.w {
			u := at(c, p.w)
			cols = append(cols, s[0]*u, s[3]*u, s[6]*u)
		}
	}
	ofRows, ofCols := up.add(rows, p.n, p.h, 1, 3), up.add(cols, p.n, 1, p.w, 3)
	return func() {
		sum := Add(*ofRows, *ofCols) // (N, H, W, 3)
		p.grid = Div(Narrow(sum, 3, 0, 2), Narrow(sum, 3, 2, 1))
	}
}

// pick adds the rows and columns to copy, and returns a function that makes their tensors.
func (p *Warp) pick(d Device, up *upload, params []WarpParams) func() {
	rows, cols := make([]float64, p.n*p.h), make([]float64, p.n*p.w)
	for i := range params {
		for r, v := range params[i].Rows {
			rows[int64(i)*p.h+int64(r)] = float64(v)
			p.ends[0] = max(p.ends[0], int64(v)+1)
		}
		for c, v := range params[i].Cols {
			cols[int64(i)*p.w+int64(c)] = float64(v)
			p.ends[1] = max(p.ends[1], int64(v)+1)
		}
	}
	ofRows, ofCols := up.add(rows, p.n, 1, p.h, 1), up.add(cols, p.n, 1, 1, p.w)
	return func() { p.rows, p.cols = To(*ofRows, d, Long), To(*ofCols, d, Long) }
}

// light adds the numbers of the lighting, if any image has it. An image without it is
// clamped to [0, 1], so that its values come back unchanged but for float64 rounding.
func (u *upload) light(params []WarpParams) *warpLight {
	// float32 numbers: fastai 1.0.54, vision/image.py, logit_
	const darkest, lightest = float64(float32(1e-7)), float64(float32(1 - 1e-7))
	n := len(params)
	low, high, scales, shifts := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	any := false
	for i, q := range params {
		scale := q.LogitScale
		if scale == 0 {
			scale = 1
		}
		low[i], high[i], scales[i], shifts[i] = 0, 1, scale, q.LogitShift*scale
		if q.LogitShift != 0 || scale != 1 {
			low[i], high[i] = darkest, lightest
			any = true
		}
	}
	if !any {
		return nil
	}
	add := func(v []float64) *torch.Tensor { return u.add(v, int64(n), 1, 1, 1) }
	return &warpLight{add(low), add(high), add(scales), add(shifts)}
}

// Images returns the transformed images, (N, C, H, W) in float32. The input x is
// (N, C, h, w) with values in [0, 1]; h, w and the element type may be any. A sampled
// pixel is interpolated between the nearest four. It panics with an *[InputError] if x
// does not have as many images as there are transforms, or not the rows and columns that
// are copied; so does Masks.
func (p *Warp) Images(x torch.Tensor) torch.Tensor {
	x = p.apply(x, p.images, 0)
	if l := p.light; l != nil {
		x = call(opClamp, x, *l.darkest, *l.lightest)
		run(opLogit_, x)
		x = call(opAddCMul, *l.shift, x, *l.scale)
		run(opSigmoid_, x)
	}
	return To(x, DeviceOf(x), Float)
}

// Masks returns the transformed masks, (N, C, H, W) in the element type of the input y
// (N, C, h, w). Each pixel is a copy of one pixel. Of a sampled mask it is the nearest
// one; halves are rounded to even. Lighting does not change masks.
func (p *Warp) Masks(y torch.Tensor) torch.Tensor {
	return To(p.apply(y, p.masks, 1), DeviceOf(y), DTypeOf(y))
}

// apply returns the images x as float64, made by the steps.
func (p *Warp) apply(x torch.Tensor, steps []warpStep, interpolation int) (out torch.Tensor) {
	shape := Shape(x)
	if len(shape) != 4 || shape[0] != p.n {
		panic(&InputError{"Warp", fmt.Sprintf("input of shape %v, wanted (%d, C, H, W), an image for each of the transforms", shape, p.n)})
	}
	if shape[2] < p.ends[0] || shape[3] < p.ends[1] {
		panic(&InputError{"Warp", fmt.Sprintf("input of shape %v, but %d rows and %d columns are copied from", shape, p.ends[0], p.ends[1])})
	}
	x = To(x, DeviceOf(x), Double)
	for _, s := range steps {
		made := p.oneWay(x, s.warpWay, interpolation)
		if s.of == nil {
			out = made
			continue
		}
		out = call(opWhere, To(*s.of, DeviceOf(x), Bool), made, out)
	}
	return out
}

// oneWay returns all images made in one way.
func (p *Warp) oneWay(x torch.Tensor, way warpWay, interpolation int) torch.Tensor {
	if way.copy {
		shape := Shape(x)
		c, w := shape[1], shape[3]
		x = call(opGather, x, 2, call(opExpand, p.rows, []int64{p.n, c, p.h, w}))
		return call(opGather, x, 3, call(opExpand, p.cols, []int64{p.n, c, p.h, p.w}))
	}
	if way.areaH > 0 {
		x = call(opAverage, x, []int64{way.areaH, way.areaW})
	}
	return call(opGridSampler, x, p.grid, interpolation, way.padding, true)
}
