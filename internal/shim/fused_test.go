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

// TestFusedLayersCPU compares the fused layers of the CPU with libtorch's operators, in
// results and gradients: with and without blur and a skip, on maps of one row and of more,
// with gradients for any of the operands, on sums whose number of elements is not a multiple
// of 8 and on longer ones than a thread takes at a time, and with values that are not numbers.
func TestFusedLayersCPU(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 0))
	leaf := func(shape ...int64) torch.Tensor {
		v := make([]float32, size(shape))
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		x := floats(t, v, shape...)
		require.NoError(t, shim.SetRequiresGrad(x, true))
		return x
	}
	golden.AVX2(t)
	yes, err := shim.FusedCPU(leaf(1, 1, 1, 1))
	require.NoError(t, err)
	require.True(t, yes)
	relu, add := shim.NewOp("relu"), shim.NewOp("add.Tensor")
	same := func(t *testing.T, delta float64, leaves []torch.Tensor, fast, slow func() (torch.Tensor, error)) {
		t.Helper()
		var all [2][][]float32
		var by torch.Tensor
		for i, f := range []func() (torch.Tensor, error){slow, fast} {
			y, err := f()
			require.NoError(t, err)
			info, err := shim.Inspect(y)
			require.NoError(t, err)
			if i == 0 {
				by = leaf(info.Shape...)
			}
			all[i] = append(all[i], values(t, y))
			require.NoError(t, shim.Backward(call(t, opSum, call(t, opMul, y, by)), false))
			for _, l := range leaves {
				info, err := shim.Inspect(l)
				require.NoError(t, err)
				g, ok, err := shim.Grad(l)
				require.NoError(t, err)
				require.Equal(t, info.RequiresGrad, ok)
				if ok {
					all[i] = append(all[i], values(t, g))
					require.NoError(t, shim.SetGrad(l, torch.Tensor{}))
				}
			}
			shim.NoGrad(func() {
				plain, err := f()
				require.NoError(t, err)
				require.Equal(t, all[i][0], values(t, plain), "without gradients")
			})
		}
		for i := range all[0] {
			require.InDeltaSlice(t, all[0][i], all[1][i], delta, "result, or gradient %d", i)
		}
	}
	for _, blur := range []bool{true, false} {
		for _, c := range [][3]int64{{1, 8, 0}, {3, 8, 3}, {2, 24, 1}} {
			t.Run(fmt.Sprintf("blur %t, %v", blur, c), func(t *testing.T) {
				const n, in, out = 2, 5, 12
				h, w := c[0], c[1]
				x, kernel, bias := leaf(n, in, h, w), leaf(out, in, 1, 1), leaf(out)
				leaves := []torch.Tensor{x, kernel, bias}
				var skip torch.Tensor
				if c[2] > 0 {
					skip = leaf(n, c[2], 2*h, 2*w)
					leaves = append(leaves, skip)
				}
				fast := func() (torch.Tensor, error) { return shim.UpsampleCPU(x, kernel, bias, skip, blur) }
				slow := func() (torch.Tensor, error) {
					y := call(t, shim.NewOp("pixel_shuffle"), call(t, relu, call(t, shim.NewOp("conv2d"), x, kernel, bias)), 2)
					if blur {
						y = call(t, shim.NewOp("replication_pad2d"), y, []int64{1, 0, 1, 0})
						y = call(t, shim.NewOp("avg_pool2d"), y, []int64{2, 2}, []int64{1, 1})
					}
					if skip.T != nil {
						y = call(t, shim.NewOp("cat"), []torch.Tensor{y, skip}, 1)
					}
					return y, nil
				}
				for with := 1; with < 1<<len(leaves); with++ {
					for i, l := range leaves {
						require.NoError(t, shim.SetRequiresGrad(l, with>>i&1 != 0))
					}
					same(t, 2e-4, leaves, fast, slow) // float32 sums of up to 100 numbers of size 10
				}
			})
		}
	}
	t.Run("sum", func(t *testing.T) {
		for _, shape := range [][]int64{{2, 3, 5, 7}, {2, 3, 151, 211}} { // 210 and 191,166 elements
			x, y, z := leaf(shape...), leaf(shape...), leaf(shape...)
			same(t, 0, []torch.Tensor{x, y, z}, func() (torch.Tensor, error) {
				return shim.AddReLU(x, call(t, opMul, y, z))
			}, func() (torch.Tensor, error) {
				return call(t, add, x, call(t, relu, call(t, opMul, y, z))), nil
			})
		}
	})
	t.Run("not numbers", func(t *testing.T) {
		nan := float32(math.NaN())
		kernel := floats(t, []float32{1, 1, 1, 1}, 4, 1, 1, 1)
		x := floats(t, []float32{1, 2, nan, 4, 5, 6, 7, 8}, 1, 1, 1, 8)
		y, err := shim.UpsampleCPU(x, kernel, torch.Tensor{}, torch.Tensor{}, false)
		require.NoError(t, err)
		sum, err := shim.AddReLU(x, call(t, opMul, x, x))
		require.NoError(t, err)
		for i, v := range values(t, y) {
			require.Equal(t, i%16/2 == 2, math.IsNaN(float64(v)), "pixel %d", i)
		}
		for i, v := range values(t, sum) {
			require.Equal(t, i == 2, math.IsNaN(float64(v)), "pixel %d", i)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		x, w := leaf(1, 4, 2, 8), leaf(8, 4, 1, 1)
		_, err := shim.UpsampleCPU(leaf(1, 4, 2, 9), w, torch.Tensor{}, torch.Tensor{}, true)
		require.ErrorContains(t, err, "a width that is a multiple of 8")
		_, err = shim.UpsampleCPU(leaf(1, 4, 0, 8), w, torch.Tensor{}, torch.Tensor{}, true)
		require.ErrorContains(t, err, "wanted rows")
		_, err = shim.UpsampleCPU(x, leaf(8, 5, 1, 1), torch.Tensor{}, torch.Tensor{}, true)
		require.ErrorContains(t, err, "a kernel of")
		_, err = shim.UpsampleCPU(x, w, torch.Tensor{}, leaf(1, 2, 2, 2), true)
		require.ErrorContains(t, err, "a skip of shape")
		_, err = shim.AddReLU(x, call(t, relu, w))
		require.ErrorContains(t, err, "the sum of maps of shapes")
	})
}
