package augment

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/internal/golden"
)

// with returns the identity, changed.
func with(change func(*Params)) Params {
	p := Identity()
	if change != nil {
		change(&p)
	}
	return p
}

var goldenWarp = [4]float64{0.15, -0.1, 0.2, -0.05}

// cases are those of golden/scripts/b8.py.
var cases = map[string]Params{
	"identity_resize_none": Identity(),
	"flip_lr":              with(func(p *Params) { p.Flip = true }),
	"symmetric_warp":       with(func(p *Params) { p.Warp = goldenWarp }),
	"symmetric_warp_neg":   with(func(p *Params) { p.Warp = [4]float64{-0.2, 0.2, -0.2, 0.2} }),
	"rotate_+10":           with(func(p *Params) { p.Degrees = 10 }),
	"rotate_-7.3":          with(func(p *Params) { p.Degrees = -7.3 }),
	"zoom_1.1_center":      with(func(p *Params) { p.Zoom, p.ZoomRow, p.ZoomCol = 1.1, 0.5, 0.5 }),
	"zoom_1.08_r0.3_c0.9":  with(func(p *Params) { p.Zoom, p.ZoomRow, p.ZoomCol = 1.08, 0.3, 0.9 }),
	"zoom_0.8_reflect":     with(func(p *Params) { p.Zoom, p.ZoomRow, p.ZoomCol = 0.8, 0.3, 0.6 }),
	"brightness_0.4":       with(func(p *Params) { p.Brightness = 0.4 }),
	"brightness_0.6":       with(func(p *Params) { p.Brightness = 0.6 }),
	"contrast_0.8":         with(func(p *Params) { p.Contrast = 0.8 }),
	"contrast_1.25":        with(func(p *Params) { p.Contrast = 1.25 }),
	"bright_contrast":      with(func(p *Params) { p.Brightness, p.Contrast = 0.57, 1.17 }),
	"rotate_zeros_padding": with(func(p *Params) { p.Degrees, p.Padding = 10, Zeros }),
	"rotate_border_padding": with(func(p *Params) {
		p.Degrees, p.Padding = 10, Border
	}),
	"composed_all": {
		CropRow: 0.2, CropCol: 0.7, Flip: true, Warp: goldenWarp, Degrees: 6.5,
		Zoom: 1.07, ZoomRow: 0.8, ZoomCol: 0.25, Brightness: 0.45, Contrast: 1.2,
	},
	"composed_noflip_nolight": with(func(p *Params) {
		p.Warp, p.Degrees = [4]float64{-0.15, 0.1, -0.2, 0.05}, -9
		p.Zoom, p.ZoomRow, p.ZoomCol = 1.03, 0.1, 0.9
	}),
}

func floats(t testing.TB, m map[string]checkpoint.Tensor, name string) []float32 {
	out := []float32{}
	for _, v := range golden.Float64s(t, m, name) {
		out = append(out, float32(v))
	}
	return out
}

// The error of fastai's float32: a coordinate is off by a few 2^-24 of up to 56
// pixels, which changes a grey value most where neighbouring pixels differ
// most, at a border of zeros.
const (
	tolerance      = 2e-6
	zerosTolerance = 6e-6
)

func checkGolden(t *testing.T, m map[string]checkpoint.Tensor, name, in, mask string, p Params, size int) float64 {
	shape := m[in].Shape
	plan, err := p.Plan(shape[1], shape[2], size)
	require.NoError(t, err)
	x, y := floats(t, m, in), floats(t, m, mask)
	tol := tolerance
	if p.Padding == Zeros {
		tol = zerosTolerance
	}
	worst := golden.Close(t, name+".image", plan.Image(nil, x), floats(t, m, name+".image"), tol)
	got := Mask(&plan, nil, y)
	for i, want := range floats(t, m, name+".mask_px") {
		if got[i] != want && !halfway(&plan, i) {
			t.Errorf("%s.mask_px: pixel %d is %v, want %v", name, i, got[i], want)
		}
	}
	return worst
}

// halfway reports whether output pixel i of a resampled mask lies so close to the
// middle of two source pixels that fastai's float32 rounding, a few 2^-24 of the
// width, decides which is nearest. This is rare with random values but happens
// with round values such as a zoom of 0.8: for 7 pixels of all golden cases.
func halfway(p *Plan, i int) bool {
	if !p.Resample {
		return false
	}
	var xs, ys [chunk]float64
	newLattice(p, p.SrcH, p.SrcW).positions(i, &xs, &ys)
	tie := func(v float64, n int) bool { return math.Abs(v-math.Floor(v)-0.5) < 5./(1<<24)*float64(n) }
	return tie(xs[0], p.SrcW) || tie(ys[0], p.SrcH)
}

func TestGoldenTransforms(t *testing.T) {
	m := golden.Tensors(t, "b8_transforms/transforms.safetensors")
	worst := 0.0
	for _, hw := range []string{"32x32", "40x56"} {
		for name, p := range cases {
			e := checkGolden(t, m, hw+"."+name, hw+".image", hw+".mask", p, 0)
			if !strings.Contains(name, "rotate") && !strings.Contains(name, "zoom") && !strings.Contains(name, "warp") && !strings.Contains(name, "composed") {
				assert.LessOrEqual(t, e, 2e-7, name) // nothing is sampled
			}
			t.Logf("%s %s %.2g", hw, name, e)
			worst = max(worst, e)
		}
	}
	t.Logf("worst error %.2g", worst)
}

func TestGoldenFlow(t *testing.T) {
	m := golden.Tensors(t, "b8_transforms/transforms.safetensors")
	for _, hw := range [][2]int{{32, 32}, {40, 56}} {
		for name, p := range map[string]Params{
			"identity":       Identity(),
			"symmetric_warp": cases["symmetric_warp"],
			"rotate_+10":     cases["rotate_+10"],
			"zoom":           cases["zoom_1.08_r0.3_c0.9"],
		} {
			plan, err := p.Plan(hw[0], hw[1], 0)
			require.NoError(t, err)
			key := fmt.Sprintf("%dx%d.flow.%s", hw[0], hw[1], name)
			// fastai solves and multiplies in float32, to a few 2^-24.
			e := golden.Close(t, key, plan.Flow(), floats(t, m, key), 3e-7)
			t.Logf("%s %.2g", key, e)
		}
	}
}

func TestGoldenSizes(t *testing.T) {
	m := golden.Tensors(t, "b8_transforms/transforms.safetensors")
	var keys []string
	for k := range m {
		if strings.HasPrefix(k, "size.") && strings.HasSuffix(k, ".in") {
			keys = append(keys, strings.TrimSuffix(k, ".in"))
		}
	}
	slices.Sort(keys)
	require.Len(t, keys, 8)
	worst := 0.0
	for _, k := range keys {
		var h, w, size int
		_, err := fmt.Sscanf(k, "size.%dx%dto%d", &h, &w, &size)
		require.NoError(t, err)
		worst = max(worst, checkGolden(t, m, k, k+".in", k+".mask_in", Identity(), size))
		worst = max(worst, checkGolden(t, m, k+".rotflip", k+".in", k+".mask_in", Params{CropRow: 0.9, CropCol: 0.1, Degrees: 6, Flip: true}, size))
	}
	t.Logf("worst error %.2g", worst)
}
