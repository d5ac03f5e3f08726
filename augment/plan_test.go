package augment

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"
)

// The slow twin of perspective: fastai's eight equations, solved.
func TestPerspectiveSolvesItsEquations(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		m := [4]float64{}
		for i := range m {
			m[i] = 0.6*r.Float64() - 0.3
		}
		from := [4][2]float64{{-1 - m[3], -1 - m[1]}, {-1 - m[2], 1 + m[1]}, {1 + m[3], -1 - m[0]}, {1 + m[2], 1 + m[0]}}
		to := [4][2]float64{{-1, -1}, {-1, 1}, {1, -1}, {1, 1}}
		a, b := mat.NewDense(8, 8, nil), mat.NewVecDense(8, nil)
		for i := range from {
			x, y, u, v := from[i][0], from[i][1], to[i][0], to[i][1]
			a.SetRow(2*i, []float64{x, y, 1, 0, 0, 0, -u * x, -u * y})
			a.SetRow(2*i+1, []float64{0, 0, 0, x, y, 1, -v * x, -v * y})
			b.SetVec(2*i, u)
			b.SetVec(2*i+1, v)
		}
		var c mat.VecDense
		require.NoError(t, c.SolveVec(a, b))
		got, err := perspective(m)
		require.NoError(t, err)
		for i := range 8 {
			assert.InDelta(t, c.AtVec(i), got[i], 1e-13, "coefficient %d of %v", i, m)
		}
		assert.Equal(t, 1.0, got[8])
	}
}

// naive applies a plan step by step, as the comment of Plan says, each step to
// the whole image.
func naive(p *Plan, src []float32, nearest bool) []float32 {
	x, h, w := src, p.SrcH, p.SrcW
	if p.Resample {
		if p.AreaH > 0 && !nearest {
			x, h, w = raster{x, 1, h, w}.average(p.AreaH, p.AreaW).pix, p.AreaH, p.AreaW
		}
		at := func(row, col int) float64 {
			inside := row >= 0 && col >= 0 && row < h && col < w
			if !inside && p.Padding == Zeros {
				return 0
			}
			return float64(x[min(max(row, 0), h-1)*w+min(max(col, 0), w-1)])
		}
		fold := func(v float64, n int) float64 {
			for p.Padding == Reflection && n > 1 && (v < 0 || v > float64(n-1)) {
				if v < 0 {
					v = -v
				} else {
					v = 2*float64(n-1) - v
				}
			}
			if p.Padding == Border || n == 1 && p.Padding == Reflection {
				v = min(max(v, 0), float64(n-1))
			}
			return v
		}
		grid := make([]float32, p.GridH*p.GridW)
		for i := range grid {
			u := -1 + 2*float64(i%p.GridW)/max(float64(p.GridW-1), 1)
			v := -1 + 2*float64(i/p.GridW)/max(float64(p.GridH-1), 1)
			u, v = p.Affine.Map(p.Perspective.Map(u, v))
			col, row := fold((u+1)/2*float64(w-1), w), fold((v+1)/2*float64(h-1), h)
			if nearest {
				grid[i] = float32(at(int(math.RoundToEven(row)), int(math.RoundToEven(col))))
				continue
			}
			r0, c0 := math.Floor(row), math.Floor(col)
			fr, fc := row-r0, col-c0
			r, c := int(r0), int(c0)
			grid[i] = float32((at(r, c)*(1-fc)+at(r, c+1)*fc)*(1-fr) + (at(r+1, c)*(1-fc)+at(r+1, c+1)*fc)*fr)
		}
		x, h, w = grid, p.GridH, p.GridW
	}
	x = append([]float32(nil), x...)
	if p.Lighting && !nearest {
		for i, v := range x {
			x[i] = float32(relit(v, p.LogitShift, p.LogitScale))
		}
	}
	if p.Flip {
		Flip(x, w)
	}
	var out []float32
	for r := range p.H {
		out = append(out, x[(p.Top+r)*w+p.Left:][:p.W]...)
	}
	return out
}

// The fast application equals the naive one for random transforms and for
// images and masks that have odd sizes, are one pixel wide, enlarged, reduced,
// cropped or padded.
func TestApplyIsItsDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	sizes := [][3]int{{16, 16, 0}, {16, 16, 16}, {17, 30, 0}, {30, 17, 12}, {9, 14, 20}, {50, 64, 10}, {1, 1, 0}, {1, 1, 3}, {1, 9, 0}, {9, 1, 0}, {9, 1, 4}, {2, 2, 5}, {300, 7, 7}, {60, 140, 0}}
	for i := range 210 {
		size := sizes[i%len(sizes)]
		c := Default()
		c.Padding = Padding(i % 3)
		if i%5 == 0 {
			c.MaxWarp, c.MaxRotate, c.MaxZoom = 0.3, 180, 3
		}
		params := c.Draw(r)
		if i%7 == 0 {
			params.Zoom = 0.05 + r.Float64() // far outside the image
		}
		p, err := params.Plan(size[0], size[1], size[2])
		require.NoError(t, err)
		image := make([]float32, 3*p.SrcH*p.SrcW)
		for i := range image {
			image[i] = r.Float32()
		}
		got := p.Image(nil, image)
		require.Len(t, got, 3*p.H*p.W)
		for ch := range 3 {
			want := naive(&p, image[ch*p.SrcH*p.SrcW:][:p.SrcH*p.SrcW], false)
			for j, v := range want {
				// float32 products and sums of four values up to 1
				require.InDelta(t, v, got[ch*p.H*p.W+j], 4e-7, "%v %+v: channel %d pixel %d", size, params, ch, j)
			}
		}
		mask := image[:p.SrcH*p.SrcW]
		nearest := Mask(&p, nil, mask)
		wrong := 0
		for j, v := range naive(&p, mask, true) {
			if nearest[j] != v && !halfway(&p, j) {
				wrong++
			}
		}
		require.Zero(t, wrong, "%v %+v", size, params)
	}
}

// One matrix equals perspective, affine map, flip and crop together.
func TestSamplingFoldsFlipAndCrop(t *testing.T) {
	params := Params{Warp: goldenWarp, Degrees: 7, Zoom: 1.1, ZoomRow: 0.2, ZoomCol: 0.9, Flip: true, CropRow: 0.3, CropCol: 0.8}
	p, err := params.Plan(40, 67, 32)
	require.NoError(t, err)
	assert.Equal(t, []int{32, 54, 32, 32, 0, 18}, []int{p.GridH, p.GridW, p.H, p.W, p.Top, p.Left})
	s := p.Sampling()
	for _, at := range [][2]int{{0, 0}, {5, 20}, {31, 31}, {30, 2}} {
		row, col := at[0], at[1]
		gridRow, gridCol := p.Top+row, p.GridW-1-(p.Left+col)
		wantX, wantY := p.Affine.Map(p.Perspective.Map(-1+2*float64(gridCol)/53, -1+2*float64(gridRow)/31))
		x, y := s.Map(-1+2*float64(col)/31, -1+2*float64(row)/31)
		assert.InDelta(t, wantX, x, 1e-14)
		assert.InDelta(t, wantY, y, 1e-14)
	}
}

// If nothing is drawn, the image does not change, not even by rounding.
func TestIdentityCopies(t *testing.T) {
	image := []float32{0, 1, 0.1, 0.2, 0.3, 0.7}
	p, err := Identity().Plan(2, 3, 0)
	require.NoError(t, err)
	assert.False(t, p.Resample)
	assert.False(t, p.Lighting)
	assert.Equal(t, image, p.Image(nil, image))
	assert.Equal(t, []bool{true, false, true, true, false, false}, Mask(&p, nil, []bool{true, false, true, true, false, false}))

	flip := Params{Flip: true}
	p, err = flip.Plan(2, 3, 0)
	require.NoError(t, err)
	assert.False(t, p.Resample)
	assert.Equal(t, []float32{0.1, 1, 0, 0.7, 0.3, 0.2}, p.Image(nil, image))
}

// The fixed point of the zoom does not move, and points right of it move right. A
// positive angle turns the image anticlockwise.
func TestDirections(t *testing.T) {
	const n = 21
	dot := func(row, col int) []float32 {
		pix := make([]float32, n*n)
		pix[row*n+col] = 1
		return pix
	}
	brightest := func(pix []float32) (row, col int) {
		at := 0
		for i, v := range pix {
			if v > pix[at] {
				at = i
			}
		}
		return at / n, at % n
	}
	for _, c := range []struct {
		name     string
		p        Params
		from, to [2]int
	}{
		{"zoom keeps its point", Params{Zoom: 2, ZoomRow: 0.25, ZoomCol: 0.75}, [2]int{5, 15}, [2]int{5, 15}},
		{"zoom moves away", Params{Zoom: 2, ZoomRow: 0.25, ZoomCol: 0.75}, [2]int{6, 13}, [2]int{7, 11}},
		{"rotate anticlockwise", Params{Degrees: 90}, [2]int{10, 18}, [2]int{2, 10}},
		{"flip", Params{Flip: true}, [2]int{3, 4}, [2]int{3, 16}},
	} {
		p, err := c.p.Plan(n, n, n)
		require.NoError(t, err)
		row, col := brightest(p.Image(nil, dot(c.from[0], c.from[1])))
		assert.Equal(t, c.to, [2]int{row, col}, c.name)
		assert.Equal(t, float32(1), Mask(&p, nil, dot(c.from[0], c.from[1]))[c.to[0]*n+c.to[1]], c.name)
	}
}

func TestBadParams(t *testing.T) {
	nan := math.NaN()
	for _, p := range []Params{
		{Degrees: nan}, {Degrees: math.Inf(1)}, {Zoom: -1}, {Zoom: nan}, {Zoom: 1e9}, {Zoom: 2, ZoomRow: 2}, {ZoomCol: nan},
		{Brightness: 1}, {Brightness: -0.1}, {Brightness: nan}, {Contrast: -1}, {Contrast: math.Inf(1)},
		{CropRow: -0.5}, {CropCol: 1.01}, {Padding: 3}, {Padding: -1},
		{Warp: [4]float64{-1, 0, 0, 0}}, {Warp: [4]float64{-1, -1, -1, -1}}, {Warp: [4]float64{5, -3, 0, 0}}, {Warp: [4]float64{nan}}, {Warp: [4]float64{math.Inf(1)}},
	} {
		_, err := p.Plan(8, 8, 8)
		assert.ErrorContains(t, err, "augment: ", "%+v", p)
	}
	for _, s := range [][3]int{{0, 8, 8}, {8, 0, 8}, {8, 8, -1}, {-1, -1, 0}, {1, 1 << 30, 1 << 30}} {
		_, err := Identity().Plan(s[0], s[1], s[2])
		assert.ErrorContains(t, err, "augment: ")
	}
}

func TestWrongLengthsPanic(t *testing.T) {
	p, err := Identity().Plan(4, 5, 0)
	require.NoError(t, err)
	assert.PanicsWithError(t, "augment: image of 21 values; the plan is for a multiple of 4x5", func() { p.Image(nil, make([]float32, 21)) })
	assert.PanicsWithError(t, "augment: mask of 40 values; the plan is for 4x5", func() { Mask(&p, nil, make([]uint8, 40)) })
	assert.PanicsWithError(t, "augment: 7 values do not fill whole rows of 3", func() { Flip(make([]int, 7), 3) })
}

func TestDestinationsAreReused(t *testing.T) {
	params := cases["composed_all"]
	p, err := params.Plan(20, 30, 20)
	require.NoError(t, err)
	image := picture(20, 30)
	want := p.Image(nil, image)
	dst := make([]float32, 500)
	got := p.Image(dst, image)
	assert.Equal(t, want, got)
	assert.Same(t, &dst[0], &got[0])
	assert.Equal(t, picture(20, 30), image, "the source is left alone")
}

func TestFlip(t *testing.T) {
	pix := []int{1, 2, 3, 4, 5, 6}
	Flip(pix, 3)
	assert.Equal(t, []int{3, 2, 1, 6, 5, 4}, pix)
	Flip(pix, 3)
	assert.Equal(t, []int{1, 2, 3, 4, 5, 6}, pix)
	Flip(pix, 1)
	assert.Equal(t, []int{1, 2, 3, 4, 5, 6}, pix)
}

// For any numbers, Plan returns an error or a plan that can be applied.
func FuzzPlan(f *testing.F) {
	f.Add(7, 5, 4, 0.1, -0.2, 0.15, 0.0, 9.0, 1.1, 0.2, 0.9, 0.6, 1.2, true, 0.3, 0.8, 0)
	f.Add(1, 30, 9, 0.3, -0.3, 0.3, -0.3, 1e300, 1000.0, 1.0, 0.0, 1e-300, 1000.0, false, 1.0, 1.0, 2)
	f.Add(30, 1, 2, 0.0, 0.0, 0.0, 0.0, -179.0, 0.001, 1.0, 1.0, 0.999, 1e-300, false, 0.0, 1.0, 1)
	f.Add(64, 64, 8, -0.36, 0.36, 0.36, -0.36, 45.0, 0.001, 1.0, 1.0, 0.0, 0.0, false, 0.0, 1.0, 0)
	f.Fuzz(func(t *testing.T, h, w, size int, a, b, c, d, degrees, zoom, zr, zc, bright, contrast float64, flip bool, cr, cc float64, padding int) {
		p := Params{
			Warp: [4]float64{a, b, c, d}, Degrees: degrees, Zoom: zoom, ZoomRow: zr, ZoomCol: zc,
			Brightness: bright, Contrast: contrast, Flip: flip, CropRow: cr, CropCol: cc, Padding: Padding(padding),
		}
		plan, err := p.Plan(h, w, size)
		if err != nil || h*w > 5000 || plan.H*plan.W > 5000 {
			return
		}
		image := make([]float32, h*w)
		for i := range image {
			image[i] = float32(i%11) / 10
		}
		for i, v := range plan.Image(nil, image) {
			if !(v >= 0 && v <= 1.000001) {
				t.Fatalf("pixel %d is %v", i, v)
			}
		}
		Mask(&plan, nil, image)
	})
}
