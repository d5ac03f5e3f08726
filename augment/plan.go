package augment

import (
	"fmt"
	"math"
)

// maxSide keeps products of sides in range, before and after a resize.
const maxSide = 1 << 20

// A Matrix is a row-major 3x3 matrix. It maps a point (x, y): it is multiplied
// by the column (x, y, 1), and the result is divided by its third component.
type Matrix [9]float64

var identity = Matrix{1, 0, 0, 0, 1, 0, 0, 0, 1}

// Mul returns the matrix that maps by b first and then by a.
func (a Matrix) Mul(b Matrix) Matrix {
	var m Matrix
	for i := range 3 {
		for j := range 3 {
			m[3*i+j] = a[3*i]*b[j] + a[3*i+1]*b[3+j] + a[3*i+2]*b[6+j]
		}
	}
	return m
}

// Map returns the image of the point (x, y).
func (a Matrix) Map(x, y float64) (float64, float64) {
	z := a[6]*x + a[7]*y + a[8]
	return (a[0]*x + a[1]*y + a[2]) / z, (a[3]*x + a[4]*y + a[5]) / z
}

// A Plan is [Params] for one image size: the numbers that a sampler needs, on
// any device. The steps are, in this order:
//  1. If Resample, and only for images: if AreaH > 0, average the source to
//     AreaH x AreaW pixels (torch's adaptive_avg_pool2d).
//  2. If Resample: for each pixel of the grid, GridH x GridW, at normalized
//     coordinates (u, v), sample the source at Affine(Perspective(u, v)); Padding
//     is the rule outside the source. An image is sampled bilinearly; a mask takes
//     the nearest pixel, with coordinates rounded half to even. This is torch's
//     grid_sample with align_corners=True.
//  3. If Lighting, and only for images: x becomes
//     sigmoid((logit(clamp(x, 1e-7, 1-1e-7)) + LogitShift) * LogitScale).
//  4. If Flip, mirror left and right.
//  5. Crop to H x W pixels; the first pixel is at row Top, column Left.
//
// [Plan.Sampling] returns steps 2, 4 and 5 as one matrix over the grid of the
// output.
type Plan struct {
	SrcH, SrcW   int // size of the source image
	AreaH, AreaW int // size of the source after averaging; 0 means no averaging
	GridH, GridW int // size of the sampling grid
	H, W         int // size of the result

	Resample    bool   // false: only steps 3, 4 and 5 change the image
	Perspective Matrix // the identity if no warp was drawn; the last element is 1
	Affine      Matrix // rotation and zoom, corrected for the aspect ratio; the last row is 0 0 1
	Padding     Padding

	Lighting               bool
	LogitShift, LogitScale float64 // 0 and 1 mean no change

	Flip      bool
	Top, Left int
}

// Plan returns the plan that turns an image of h x w pixels into one of size x
// size; size 0 keeps the size. An image of another size is scaled so that its
// shorter side fits, in the same sampling as the other transforms, and its longer
// side is cropped (ResizeMethod.CROP in fastai). An image more than twice as
// large as needed is first averaged to twice its final size, unless the zoom
// magnifies it so much that the sampling is dense. It returns an error if a side
// is not in 1 to 2^20 or a value is out of range, such as a warp that turns the
// frame inside out.
func (p Params) Plan(h, w, size int) (Plan, error) {
	if h < 1 || w < 1 || size < 0 || max(h, w, size) > maxSide {
		return Plan{}, fmt.Errorf("augment: image of %dx%d pixels to size %d; wanted sides of 1 to %d", h, w, size, maxSide)
	}
	if err := p.check(); err != nil {
		return Plan{}, err
	}
	plan := Plan{
		SrcH: h, SrcW: w, GridH: h, GridW: w, H: h, W: w,
		Perspective: identity, Affine: identity, Padding: p.Padding,
		LogitScale: 1, Flip: p.Flip,
	}
	if size > 0 {
		ratio := min(float64(h)/float64(size), float64(w)/float64(size))
		plan.GridH = int(math.RoundToEven(float64(h) / ratio))
		plan.GridW = int(math.RoundToEven(float64(w) / ratio))
		plan.H, plan.W = size, size
	}
	plan.Top = cropAt(plan.GridH, plan.H, p.CropRow)
	plan.Left = cropAt(plan.GridW, plan.W, p.CropCol)

	if p.Warp != [4]float64{} {
		m, err := perspective(p.Warp)
		if err != nil {
			return Plan{}, err
		}
		plan.Perspective = m
	}
	rotates, zooms := p.Degrees != 0, p.Zoom != 0 && p.Zoom != 1
	if rotates || zooms {
		plan.Affine = affine(p, float64(plan.GridH)/float64(plan.GridW))
	}
	plan.Resample = rotates || zooms || plan.Perspective != identity || plan.GridH != h || plan.GridW != w
	plan.area()

	if p.Brightness != 0 && p.Brightness != 0.5 {
		plan.LogitShift = math.Log(p.Brightness / (1 - p.Brightness))
	}
	if p.Contrast != 0 {
		plan.LogitScale = p.Contrast
	}
	plan.Lighting = plan.LogitShift != 0 || plan.LogitScale != 1
	return plan, nil
}

func (p Params) check() error {
	bad := func(name string, value any, want string) error {
		return fmt.Errorf("augment: %s is %v; wanted %s", name, value, want)
	}
	in01 := func(v float64) bool { return v >= 0 && v <= 1 }
	switch {
	case math.IsNaN(p.Degrees) || math.IsInf(p.Degrees, 0):
		return bad("Degrees", p.Degrees, "a finite angle")
	case !(p.Zoom == 0 || p.Zoom >= 1e-3 && p.Zoom <= 1e3):
		return bad("Zoom", p.Zoom, "a factor in [0.001, 1000], or 0 for none")
	case !in01(p.ZoomRow) || !in01(p.ZoomCol):
		return bad("the fixed point of the zoom", [2]float64{p.ZoomRow, p.ZoomCol}, "row and column in [0, 1]")
	case !(p.Brightness >= 0 && p.Brightness < 1):
		return bad("Brightness", p.Brightness, "a grey in (0, 1), or 0 for none")
	case !(p.Contrast >= 0 && p.Contrast <= 1e3):
		return bad("Contrast", p.Contrast, "a factor in (0, 1000], or 0 for none")
	case !in01(p.CropRow) || !in01(p.CropCol):
		return bad("the place of the crop", [2]float64{p.CropRow, p.CropCol}, "row and column in [0, 1]")
	case p.Padding < Reflection || p.Padding > Zeros:
		return bad("Padding", int(p.Padding), "Reflection, Border or Zeros")
	}
	return nil
}

// cropAt returns the first pixel of a crop of n of size pixels at the place pct
// in [0, 1].
func cropAt(size, n int, pct float64) int {
	if pct == 1 {
		pct -= 1e-7 // as in fastai: 1 means the last position, not the one after it
	}
	return int(float64(size-n+1) * pct)
}

// perspective returns the projective map from the warped corners to the corners
// of the frame, (±1, ±1).
//
// Source: P. Heckbert, "Fundamentals of Texture Mapping and Image Warping"
// (1989), section 2.2.3, square to quadrilateral; this is the inverse.
func perspective(m [4]float64) (Matrix, error) {
	x00, y00 := -1-m[3], -1-m[1] // top left
	x01, y01 := -1-m[2], +1+m[1] // bottom left
	x10, y10 := +1+m[3], -1-m[0] // top right
	x11, y11 := +1+m[2], +1+m[0] // bottom right

	dx1, dx2, sx := x10-x11, x01-x11, x00-x10+x11-x01
	dy1, dy2, sy := y10-y11, y01-y11, y00-y10+y11-y01
	det := dx1*dy2 - dx2*dy1
	g, h := (sx*dy2-dx2*sy)/det, (dx1*sy-sx*dy1)/det
	a, b, c := x10-x00+g*x10, x01-x00+h*x01, x00
	d, e, f := y10-y00+g*y10, y01-y00+h*y01, y00

	inverse := Matrix{ // up to a factor, which does not matter
		e - f*h, c*h - b, b*f - c*e,
		f*g - d, a - c*g, c*d - a*f,
		d*h - e*g, b*g - a*h, a*e - b*d,
	}
	out := Matrix{2, 0, -1, 0, 2, -1, 0, 0, 1}.Mul(inverse) // from [0, 1] to [-1, 1]
	for i := range out {
		out[i] /= out[8]
	}
	out[8] = 1
	for _, x := range []float64{-1, 1} {
		for _, y := range []float64{-1, 1} {
			if !(out[6]*x+out[7]*y+1 > 1e-6) {
				return Matrix{}, fmt.Errorf("augment: a warp of %v turns the frame inside out; wanted magnitudes up to 0.3", m)
			}
		}
	}
	return out, nil
}

// affine returns the map of the zoom followed by the rotation; aspect is height
// over width.
func affine(p Params, aspect float64) Matrix {
	sin, cos := math.Sincos(p.Degrees * math.Pi / 180)
	m := Matrix{cos, -sin, 0, sin, cos, 0, 0, 0, 1}
	if p.Zoom != 0 {
		s := 1 / p.Zoom
		t := 1 - s
		m = m.Mul(Matrix{s, 0, t * (2*p.ZoomCol - 1), 0, s, t * (2*p.ZoomRow - 1), 0, 0, 1})
	}
	m[1] *= aspect
	m[3] /= aspect
	return m
}

// area decides whether the source is averaged before it is sampled. It is if
// along both axes there are more than two source pixels per grid pixel, unless
// the field of view is so small that the sampling itself is dense.
//
// Source: fastai 1.0.54, vision/image.py, _grid_sample.
func (p *Plan) area() {
	d := min(float64(p.SrcH)/float64(p.GridH), float64(p.SrcW)/float64(p.GridW)) / 2
	if !p.Resample || d <= 1 {
		return
	}
	m := p.Affine.Mul(p.Perspective)
	lo, hi := math.Inf(1), math.Inf(-1) // over both coordinates; the extremes lie at corners
	for _, u := range []float64{-1, 1} {
		for _, v := range []float64{-1, 1} {
			x, y := m.Map(u, v)
			lo, hi = min(lo, x, y), max(hi, x, y)
		}
	}
	if d > 2/(hi-lo) {
		p.AreaH = int(math.Floor(float64(p.SrcH) * (1 / d)))
		p.AreaW = int(math.Floor(float64(p.SrcW) * (1 / d)))
	}
}

// Sampling returns the map from the normalized coordinates of the output,
// linspace(-1, 1, W) by linspace(-1, 1, H), to the normalized coordinates of
// the source. It combines the perspective and affine maps with flip and crop. A
// sampler of batches on a device needs only this matrix: with S = Sampling(),
// the output pixel at (u, v) is the source at
//
//	x = (S[0]u + S[1]v + S[2]) / (S[6]u + S[7]v + S[8])
//	y = (S[3]u + S[4]v + S[5]) / (S[6]u + S[7]v + S[8])
//
// For a plan that does not resample, the map holds only flip and crop. Copying
// pixels is exact then, while sampling with the map has rounding errors.
func (p *Plan) Sampling() Matrix {
	// Output pixel i is grid pixel first+i and lies at -1 + 2(first+i)/(n-1).
	// With a flip, pixels are counted from the other end and the sign changes.
	line := func(n, out, first int) (scale, shift float64) {
		if n == 1 { // torch's linspace of one element is -1
			return 0, -1
		}
		scale = float64(out-1) / float64(n-1)
		return scale, scale - 1 + 2*float64(first)/float64(n-1)
	}
	sx, tx := line(p.GridW, p.W, p.Left)
	sy, ty := line(p.GridH, p.H, p.Top)
	if p.Flip && p.GridW > 1 {
		sx, tx = -sx, -tx
	}
	return p.Affine.Mul(p.Perspective).Mul(Matrix{sx, 0, tx, 0, sy, ty, 0, 0, 1})
}

// Flow returns the sampling grid as (GridH, GridW, 2): normalized x and y of the
// source for each grid pixel, before flip and crop.
func (p *Plan) Flow() []float32 {
	m := p.Affine.Mul(p.Perspective)
	flow := make([]float32, 0, 2*p.GridH*p.GridW)
	at := func(i, n int) float64 { return -1 + 2*float64(i)/float64(max(n-1, 1)) }
	for r := range p.GridH {
		for c := range p.GridW {
			x, y := m.Map(at(c, p.GridW), at(r, p.GridH))
			flow = append(flow, float32(x), float32(y))
		}
	}
	return flow
}

// Nearest returns, for a plan that only scales, flips and crops, the source row of
// each row of a mask and the source column of each column, as [Mask] takes them. For
// other plans ok is false. If the plan does not resample, [Plan.Image] copies the same
// pixels, before it changes the lighting.
func (p *Plan) Nearest() (rows, cols []int, ok bool) {
	l := newLattice(p, p.SrcH, p.SrcW)
	if !l.exact {
		return nil, nil, false
	}
	rows, cols = make([]int, p.H), make([]int, p.W)
	xs, ys := make([]float64, p.W), make([]float64, p.W)
	l.fractions(0, 0, xs, ys)
	for c, x := range xs {
		cols[c] = int(math.RoundToEven(x))
	}
	for r := range rows {
		l.fractions(r, 0, xs[:1], ys[:1])
		rows[r] = int(math.RoundToEven(ys[0]))
	}
	return rows, cols, true
}
