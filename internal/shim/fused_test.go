package shim_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// TestFusedLayers compares the fused layers, which run on the CPU too, with libtorch's
// operators, in scores and gradients: with and without blur, with a skip of an odd and an
// even number of channels, and with maps that are wider than their kernels.
func TestFusedLayers(t *testing.T) {
	for _, c := range []struct {
		blur               bool
		skip, joined, wide int64
	}{{true, 3, 8, 0}, {true, 4, 8, 3}, {false, 3, 10, 3}, {false, 2, 6, 0}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			const n, in, out, h, w = 2, 5, 16, 3, 4 // out is four times the upsampled map's channels
			r := rand.New(rand.NewPCG(3, 0))
			random := func(shape ...int64) torch.Tensor {
				v := make([]float32, size(shape))
				for i := range v {
					v[i] = float32(r.NormFloat64())
				}
				return floats(t, v, shape...)
			}
			x, skip := random(n, in, h, w), random(n, c.skip, 2*h, 2*w)
			w1, b1 := random(out, in, 1, 1), random(out)
			w3, b3 := random(8, c.joined-c.wide, 3, 3), random(8)
			leaves := []torch.Tensor{x, skip, w1, b1, w3, b3}
			for _, l := range leaves {
				require.NoError(t, shim.SetRequiresGrad(l, true))
			}
			by := random(n, 8, 2*h, 2*w)
			one := []int64{1, 1}
			joined := c.joined

			fast := func() torch.Tensor {
				wide := call(t, shim.NewOp("constant_pad_nd"), x, []int64{0, 0, 0, 0, 0, c.wide})
				y, err := shim.Upsample(wide, w1, b1, skip, joined, c.blur)
				require.NoError(t, err)
				y, err = shim.ConvReLU(y, call(t, shim.NewOp("constant_pad_nd"), w3, []int64{0, 0, 0, 0, 0, c.wide}), b3, 16)
				require.NoError(t, err)
				require.Equal(t, make([]float32, n*8*2*h*2*w), values(t, call(t, shim.NewOp("narrow"), y, 1, 8, 8)), "channels that the kernel does not have")
				return call(t, shim.NewOp("narrow"), y, 1, 0, 8)
			}
			slow := func() torch.Tensor {
				u := call(t, shim.NewOp("relu"), call(t, shim.NewOp("conv2d"), x, w1, b1))
				u = call(t, shim.NewOp("pixel_shuffle"), u, 2)
				if c.blur {
					u = call(t, shim.NewOp("avg_pool2d"), call(t, shim.NewOp("replication_pad2d"), u, []int64{1, 0, 1, 0}), []int64{2, 2}, one)
				}
				y := call(t, shim.NewOp("cat"), []torch.Tensor{u, skip}, 1)
				y = call(t, shim.NewOp("constant_pad_nd"), y, []int64{0, 0, 0, 0, 0, joined - out/4 - c.skip})
				k := call(t, shim.NewOp("constant_pad_nd"), w3, []int64{0, 0, 0, 0, 0, c.wide})
				return call(t, shim.NewOp("relu"), call(t, shim.NewOp("conv2d"), y, k, b3, one, one))
			}
			results := func(f func() torch.Tensor) (all [][]float32) {
				y := f()
				require.NoError(t, shim.Backward(call(t, shim.NewOp("sum"), call(t, shim.NewOp("mul.Tensor"), y, by)), false))
				all = append(all, values(t, y))
				for _, l := range leaves {
					g, ok, err := shim.Grad(l)
					require.NoError(t, err)
					require.True(t, ok)
					all = append(all, values(t, g))
					require.NoError(t, shim.SetGrad(l, torch.Tensor{}))
				}
				return all
			}
			want, got := results(slow), results(fast)
			for i, name := range []string{"scores", "x", "skip", "w1", "b1", "w3", "b3"} {
				require.InDeltaSlice(t, want[i], got[i], 2e-4, name) // float32 sums of up to 100 numbers of size 10
			}
		})
	}
}

// TestResizeBilinear compares the resize, up and down, with libtorch's in float64.
func TestResizeBilinear(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 0))
	random := func(shape ...int64) torch.Tensor {
		v := make([]float64, size(shape))
		for i := range v {
			v[i] = r.NormFloat64()
		}
		x, err := shim.FromSlice(v, shim.Device{}, shape...)
		require.NoError(t, err)
		return x
	}
	for _, to := range [][]int64{{8, 12}, {5, 7}, {2, 1}, {3, 4}} {
		x, by := random(2, 3, 3, 4), random(2, 3, to[0], to[1])
		require.NoError(t, shim.SetRequiresGrad(x, true))
		var got [2][2][]float64
		for i := range got {
			y := call(t, shim.NewOp("upsample_bilinear2d"), x, to, false)
			if i == 1 {
				var err error
				y, err = shim.ResizeBilinear(x, to[0], to[1])
				require.NoError(t, err)
			}
			require.NoError(t, shim.Backward(call(t, opSum, call(t, opMul, y, by)), false))
			g, ok, err := shim.Grad(x)
			require.NoError(t, err)
			require.True(t, ok)
			for j, v := range []torch.Tensor{y, g} {
				info, err := shim.Inspect(v)
				require.NoError(t, err)
				got[i][j] = make([]float64, size(info.Shape))
				require.NoError(t, shim.ToSlice(v, got[i][j]))
			}
			require.NoError(t, shim.SetGrad(x, torch.Tensor{}))
		}
		require.InDeltaSlice(t, got[0][0], got[1][0], 1e-14)
		require.InDeltaSlice(t, got[0][1], got[1][1], 1e-13)
	}
}

func TestFusedLayersRefuse(t *testing.T) {
	zeros := func(shape ...int64) torch.Tensor { return call(t, shim.NewOp("zeros"), shape) }
	x, w, skip := zeros(1, 4, 2, 2), zeros(8, 4, 1, 1), zeros(1, 2, 4, 4)
	yes, err := shim.Fused(x)
	require.NoError(t, err)
	require.False(t, yes, "on the CPU")
	_, err = shim.ConvReLU(x, w, torch.Tensor{}, 4)
	require.ErrorContains(t, err, "channels")
	_, err = shim.Upsample(x, w, torch.Tensor{}, skip, 3, true)
	require.ErrorContains(t, err, "no map of 3 channels")
	_, err = shim.Upsample(x, w, torch.Tensor{}, zeros(1, 2, 2, 2), 4, true)
	require.ErrorContains(t, err, "a skip of shape")
	_, err = shim.Upsample(x, w, torch.Tensor{}, torch.Tensor{}, 4, true)
	require.ErrorContains(t, err, "nil tensor")
}

// TestFusedLayersCPU compares the fused layers of the CPU with libtorch's operators in float32
// on the same numbers, in results and gradients: with and without blur and a skip, on maps of one
// row and of more, with gradients for any of the operands, on sums whose number of elements is not
// a multiple of 8 and on longer ones than a thread takes at a time, and with values that are not
// numbers. The maps are float32 or bfloat16; they become bfloat16 under autocast, too.
func TestFusedLayersCPU(t *testing.T) {
	golden.AVX2(t)
	for name, c := range map[string]fusedCPU{
		"float32":           {maps: torch.Float},
		"bfloat16":          {maps: torch.BFloat16, rounds: true},
		"autocast":          {maps: torch.Float, rounds: true, autocast: true},
		"products bfloat16": {maps: torch.BFloat16, rounds: true, native: true},
	} {
		t.Run(name, func(t *testing.T) {
			defer shim.NativeBFloat16(shim.NativeBFloat16(c.native))
			c.t, c.r = t, rand.New(rand.NewPCG(5, 0))
			yes, err := shim.FusedCPU(c.leaf(c.maps, 1, 1, 1, 1))
			require.NoError(t, err)
			require.True(t, yes)
			c.upsamplings()
			c.sums()
			c.notNumbers()
			c.refusals()
		})
	}
}

// fusedCPU are the cases of TestFusedLayersCPU for one type of maps.
type fusedCPU struct {
	t        *testing.T
	r        *rand.Rand
	maps     int8
	rounds   bool // results and gradients of maps are rounded to bfloat16
	autocast bool
	native   bool // products of bfloat16 are libtorch's
}

// number returns a random number, which bfloat16 can hold if the maps are rounded. Where products
// are rounded, too, numbers are small integers, for which the products are exact in bfloat16: they
// tell which results of a ReLU are positive.
func (c fusedCPU) number() float32 {
	switch {
	case c.native:
		return float32(c.r.IntN(5) - 2)
	case c.rounds:
		return float32(toBFloat16(operand{data: []float64{c.r.NormFloat64()}}).data[0])
	}
	return float32(c.r.NormFloat64())
}

func (c fusedCPU) leaf(dtype int8, shape ...int64) torch.Tensor {
	v := make([]float32, size(shape))
	for i := range v {
		v[i] = c.number()
	}
	x := to(c.t, floats(c.t, v, shape...), dtype)
	require.NoError(c.t, shim.SetRequiresGrad(x, true))
	return x
}

// run returns what f returns, under autocast if that is wanted.
func (c fusedCPU) run(f func() torch.Tensor) (y torch.Tensor) {
	if !c.autocast {
		return f()
	}
	require.NoError(c.t, shim.Autocast(false, torch.BFloat16, func() { y = f() }))
	return y
}

// compare compares fast with slow, whose result is float32, in results and the gradients of
// leaves. allowed returns the error that is allowed for a value of the result (-1) or of the
// gradient of leaf i, of which the largest is given, too.
func (c fusedCPU) compare(leaves []torch.Tensor, fast, slow func() torch.Tensor, allowed func(i int, want, largest float64) float64) {
	t := c.t
	t.Helper()
	var all [2][][]float32
	var by torch.Tensor
	for i, f := range []func() torch.Tensor{slow, func() torch.Tensor { return c.run(fast) }} {
		y := f()
		if i == 0 {
			info, err := shim.Inspect(y)
			require.NoError(t, err)
			by = c.leaf(torch.Float, info.Shape...)
		}
		all[i] = append(all[i], values(t, y))
		require.NoError(t, shim.Backward(call(t, opSum, call(t, opMul, to(t, y, torch.Float), by)), false))
		for _, l := range leaves {
			info, err := shim.Inspect(l)
			require.NoError(t, err)
			g, ok, err := shim.Grad(l)
			require.NoError(t, err)
			require.Equal(t, info.RequiresGrad, ok)
			var v []float32
			if ok {
				v = values(t, g)
				require.NoError(t, shim.SetGrad(l, torch.Tensor{}))
			}
			all[i] = append(all[i], v)
		}
	}
	var plain []float32 // the result where nothing is kept for gradients
	shim.NoGrad(func() { plain = values(t, c.run(fast)) })
	for i, want := range all[0] {
		largest := 0.0
		for _, v := range want {
			largest = max(largest, math.Abs(float64(v)))
		}
		for k, v := range want {
			require.InDelta(t, v, all[1][i][k], allowed(i-1, float64(v), largest), "result, or gradient %d, element %d", i, k)
			if i == 0 {
				require.InDelta(t, v, plain[k], allowed(-1, float64(v), largest), "result without gradients, element %d", k)
			}
		}
	}
}

func (c fusedCPU) upsamplings() {
	for _, blur := range []bool{true, false} {
		for _, size := range [][3]int64{{1, 8, 0}, {3, 8, 3}, {2, 24, 1}} {
			const n, in, out = 2, 5, 12
			h, w := size[0], size[1]
			x, kernel, bias := c.leaf(c.maps, n, in, h, w), c.leaf(torch.Float, out, in, 1, 1), c.leaf(torch.Float, out)
			leaves := []torch.Tensor{x, kernel, bias}
			var skip torch.Tensor
			if size[2] > 0 {
				skip = c.leaf(c.maps, n, size[2], 2*h, 2*w)
				leaves = append(leaves, skip)
			}
			fast := func() torch.Tensor {
				y, err := shim.UpsampleCPU(x, kernel, bias, skip, blur)
				require.NoError(c.t, err)
				info, err := shim.Inspect(y)
				require.NoError(c.t, err)
				require.Equal(c.t, c.rounds, info.DType == torch.BFloat16)
				return y
			}
			slow := func() torch.Tensor {
				y := call(c.t, shim.NewOp("conv2d"), to(c.t, x, torch.Float), kernel, bias)
				y = call(c.t, shim.NewOp("pixel_shuffle"), call(c.t, opRelu, y), 2)
				if blur {
					y = call(c.t, shim.NewOp("replication_pad2d"), y, []int64{1, 0, 1, 0})
					y = call(c.t, shim.NewOp("avg_pool2d"), y, []int64{2, 2}, []int64{1, 1})
				}
				if skip.T != nil {
					y = call(c.t, shim.NewOp("cat"), []torch.Tensor{y, to(c.t, skip, torch.Float)}, 1)
				}
				return y
			}
			allowed := func(i int, want, largest float64) float64 {
				delta := 2e-4 // float32 sums of up to 100 numbers of size 10
				switch parameter := i == 1 || i == 2; {
				case c.rounds && !parameter:
					delta += rounding * math.Abs(want) // of the map
				case c.native && parameter:
					delta += 2 * rounding * largest // of the sum for each of two images
				}
				return delta
			}
			for with := 1; with < 1<<len(leaves); with++ {
				for i, l := range leaves {
					require.NoError(c.t, shim.SetRequiresGrad(l, with>>i&1 != 0))
				}
				c.compare(leaves, fast, slow, allowed)
			}
		}
	}
}

// sums compares with libtorch's operators on maps of the same type: they round once as well.
func (c fusedCPU) sums() {
	exact := func(int, float64, float64) float64 { return 0 }
	for _, shape := range [][]int64{{2, 3, 5, 7}, {2, 3, 151, 211}} { // 210 and 191,166 elements
		x, y, z := c.leaf(c.maps, shape...), c.leaf(c.maps, shape...), c.leaf(c.maps, shape...)
		c.compare([]torch.Tensor{x, y, z}, func() torch.Tensor {
			sum, err := shim.AddReLU(x, call(c.t, opMul, y, z))
			require.NoError(c.t, err)
			return sum
		}, func() torch.Tensor {
			return call(c.t, shim.NewOp("add.Tensor"), x, call(c.t, opRelu, call(c.t, opMul, y, z)))
		}, exact)
	}
	// Ties, and a sum above the largest number.
	v := []float32{256, 1, 258, 1, 1, 0x1p-8, -1, 0x1p-9, 3e38, 3e38, -256, 1, 0x1p-126, 0x1p-133, 0, 0}
	x, y := torch.Tensor{}, torch.Tensor{}
	for i, t := range []*torch.Tensor{&x, &y} {
		var half []float32
		for k := i; k < len(v); k += 2 {
			half = append(half, v[k])
		}
		*t = to(c.t, floats(c.t, half, 1, 1, 1, int64(len(half))), c.maps)
	}
	want := values(c.t, call(c.t, shim.NewOp("add.Tensor"), x, y))
	sum, err := shim.AddReLU(x, call(c.t, shim.NewOp("clone"), y))
	require.NoError(c.t, err)
	require.Equal(c.t, want, values(c.t, sum))
}

func (c fusedCPU) notNumbers() {
	nan := float32(math.NaN())
	kernel := floats(c.t, []float32{1, 1, 1, 1}, 4, 1, 1, 1)
	x := to(c.t, floats(c.t, []float32{1, 2, nan, 4, 5, 6, 7, 8}, 1, 1, 1, 8), c.maps)
	y := c.run(func() torch.Tensor {
		y, err := shim.UpsampleCPU(x, kernel, torch.Tensor{}, torch.Tensor{}, false)
		require.NoError(c.t, err)
		return y
	})
	for i, v := range values(c.t, y) {
		require.Equal(c.t, i%16/2 == 2, math.IsNaN(float64(v)), "pixel %d", i)
	}
	sum, err := shim.AddReLU(x, call(c.t, opMul, x, x))
	require.NoError(c.t, err)
	for i, v := range values(c.t, sum) {
		require.Equal(c.t, i == 2, math.IsNaN(float64(v)), "pixel %d", i)
	}
}

func (c fusedCPU) refusals() {
	x, w := c.leaf(c.maps, 1, 4, 2, 8), c.leaf(torch.Float, 8, 4, 1, 1)
	_, err := shim.UpsampleCPU(c.leaf(c.maps, 1, 4, 2, 9), w, torch.Tensor{}, torch.Tensor{}, true)
	require.ErrorContains(c.t, err, "a width that is a multiple of 8")
	_, err = shim.UpsampleCPU(c.leaf(c.maps, 1, 4, 0, 8), w, torch.Tensor{}, torch.Tensor{}, true)
	require.ErrorContains(c.t, err, "wanted rows")
	_, err = shim.UpsampleCPU(x, c.leaf(torch.Float, 8, 5, 1, 1), torch.Tensor{}, torch.Tensor{}, true)
	require.ErrorContains(c.t, err, "a kernel of")
	_, err = shim.UpsampleCPU(x, w, torch.Tensor{}, c.leaf(c.maps, 1, 2, 2, 2), true)
	require.ErrorContains(c.t, err, "a skip of shape")
	_, err = shim.AddReLU(x, call(c.t, opRelu, w))
	require.ErrorContains(c.t, err, "the sum of maps of shapes")
	_, err = shim.AddReLU(x, to(c.t, x, torch.Half))
	require.ErrorContains(c.t, err, "the sum of maps of shapes")
}
