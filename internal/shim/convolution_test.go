package shim_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

type operand struct {
	data  []float64 // of float32's precision
	shape []int64
}

func normal(rng *rand.Rand, deviation float64, shape ...int64) operand {
	data := make([]float64, size(shape))
	for i := range data {
		data[i] = float64(float32(rng.NormFloat64() * deviation))
	}
	return operand{data, shape}
}

// convolve returns the convolution of input, filters and bias with padding 1, and, with the
// fourth operand as the gradient of the output, the gradients of these three.
func convolve[N float32 | float64](t *testing.T, operands []operand) (results [4][]float64) {
	t.Helper()
	shim.Scope(func() {
		var tensors []torch.Tensor
		for i, o := range operands {
			data := make([]N, len(o.data))
			for j, v := range o.data {
				data[j] = N(v)
			}
			x, err := shim.FromSlice(data, shim.Device{}, o.shape...)
			require.NoError(t, err)
			require.NoError(t, shim.SetRequiresGrad(x, i < 3))
			tensors = append(tensors, x)
		}
		one := []int64{1, 1}
		y := call(t, opConv2d, tensors[0], tensors[1], tensors[2], one, one)
		require.NoError(t, shim.Backward(call(t, opSum, call(t, opMul, y, tensors[3])), false))

		for i := range results {
			result, shape := y, operands[3].shape
			if i > 0 {
				gradient, ok, err := shim.Grad(tensors[i-1])
				require.NoError(t, err)
				require.True(t, ok)
				result, shape = gradient, operands[i-1].shape
			}
			results[i] = make([]float64, size(shape))
			require.NoError(t, shim.ToSlice(result, results[i]))
		}
	})
	return results
}

// worst returns the largest difference over the largest value of want.
func worst(want, got []float64) float64 {
	largest, difference := 0.0, 0.0
	for i, v := range want {
		largest = max(largest, math.Abs(v))
		difference = max(difference, math.Abs(got[i]-v))
	}
	return difference / largest
}

// TestFastConvolutions compares the fast convolution and its gradients with libtorch's in
// float64. The maps end within a tile, have rows that do not fill a vector, and numbers of
// channels that do not fill a block.
func TestFastConvolutions(t *testing.T) {
	before := shim.FastConvolutions(true)
	t.Cleanup(func() { shim.FastConvolutions(before) })
	golden.AVX2(t)
	require.True(t, shim.FastConvolutions(true))
	for _, c := range []struct{ images, in, out, height, width int64 }{
		{2, 64, 64, 32, 32},
		{1, 99, 99, 64, 128},
		{1, 16, 18, 33, 61},
		{3, 37, 50, 30, 47},
		{2, 17, 16, 19, 257},
		{1, 300, 24, 32, 36}, // more channels than are multiplied in one pass
		{1, 20, 100, 3, 512},
		{1, 16, 64, 256, 256}, // large enough to be written past the cache
	} {
		t.Run(fmt.Sprintf("%dx%dx%dx%d to %d", c.images, c.in, c.height, c.width, c.out), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			filters := 1 / math.Sqrt(float64(9*c.in))
			operands := []operand{
				normal(rng, 1, c.images, c.in, c.height, c.width),
				normal(rng, filters, c.out, c.in, 3, 3),
				normal(rng, 1, c.out),
				normal(rng, 1, c.images, c.out, c.height, c.width),
			}
			exact := convolve[float64](t, operands)
			shim.FastConvolutions(false)
			plain := convolve[float32](t, operands)
			shim.FastConvolutions(true)
			fast := convolve[float32](t, operands)

			for i, what := range []string{"output", "gradient of the input", "gradient of the filters"} {
				assert.NotEqual(t, plain[i], fast[i], "%s: the fast convolution was not used", what)
				got, libtorch := worst(exact[i], fast[i]), worst(exact[i], plain[i])
				t.Logf("%s: error over the largest value %.1e, libtorch's %.1e", what, got, libtorch)
				// The transforms lose some 2e-6 besides what a sum of so many terms does. A
				// wrong coefficient shows at 1e-2.
				assert.Less(t, got, 1e-5+2*libtorch, what)
			}
			assert.Less(t, worst(exact[3], fast[3]), 1e-5+2*worst(exact[3], plain[3]), "gradient of the bias")
		})
	}
}

// TestFastConvolutionsDoNotDependOnThreads: every sum has one order.
func TestFastConvolutionsDoNotDependOnThreads(t *testing.T) {
	before, threads := shim.FastConvolutions(true), shim.Threads()
	t.Cleanup(func() { shim.FastConvolutions(before); shim.SetThreads(threads) })
	rng := rand.New(rand.NewPCG(3, 4))
	operands := []operand{normal(rng, 1, 2, 40, 45, 52), normal(rng, 1, 70, 40, 3, 3), normal(rng, 1, 70), normal(rng, 1, 2, 70, 45, 52)}
	var want [4][]float64
	for _, n := range []int{1, 2, 3, 16} {
		shim.SetThreads(n)
		got := convolve[float32](t, operands)
		if n == 1 {
			want = got
		}
		for i := range 3 {
			assert.Equal(t, want[i], got[i], "%d threads, result %d", n, i)
		}
	}
}
