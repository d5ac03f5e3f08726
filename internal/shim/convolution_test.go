package shim_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
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

// A convolution is the geometry of one.
type convolution struct {
	stride, padding, dilation, outputPadding []int64
	transposed                               bool
	groups                                   int64
	channelsLast                             bool // the format of input and filters
	part                                     bool // the filters are a part of wider ones
}

var (
	ones, none = []int64{1, 1}, []int64{0, 0}
	plain      = convolution{stride: ones, padding: ones, dilation: ones, outputPadding: none, groups: 1}

	opConvolution = shim.NewOp("convolution")
	opTo          = shim.NewOp("to.dtype")
)

// to returns x in another type.
func to(t *testing.T, x torch.Tensor, dtype int8) torch.Tensor { return call(t, opTo, x, int(dtype)) }

// convolve returns the convolution of input, filters and bias, and, with the fourth operand as
// the gradient of the output, the gradients of these three. Input and output have the type maps,
// filters and bias the type filters.
func convolve(t *testing.T, c convolution, operands []operand, maps, filters int8) (results [4][]float64) {
	t.Helper()
	shim.Scope(func() {
		var leaves, typed []torch.Tensor
		for i, o := range operands {
			x, err := shim.FromSlice(o.data, shim.Device{}, o.shape...)
			require.NoError(t, err)
			require.NoError(t, shim.SetRequiresGrad(x, i < 3))
			leaves = append(leaves, x)
			dtype := maps
			if i == 1 || i == 2 {
				dtype = filters
			}
			x = to(t, x, dtype)
			if c.channelsLast && i < 2 {
				const channelsLast = 2 // c10::MemoryFormat::ChannelsLast
				x = call(t, shim.NewOp("contiguous"), x, channelsLast)
			}
			if c.part && i == 1 {
				x = call(t, shim.NewOp("narrow"), call(t, shim.NewOp("cat"), []torch.Tensor{x, x}, 1), 1, 0, o.shape[1])
			}
			typed = append(typed, x)
		}
		y := call(t, opConvolution, typed[0], typed[1], typed[2], c.stride, c.padding, c.dilation, c.transposed, c.outputPadding, c.groups)
		info, err := shim.Inspect(y)
		require.NoError(t, err)
		require.Equal(t, maps, int8(info.DType))
		require.Equal(t, operands[3].shape, info.Shape)
		require.NoError(t, shim.Backward(call(t, opSum, call(t, opMul, to(t, y, torch.Double), leaves[3])), false))

		for i := range results {
			result, shape := y, operands[3].shape
			if i > 0 {
				gradient, ok, err := shim.Grad(leaves[i-1])
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
		// Small maps.
		{1, 96, 96, 4, 4},
		{5, 99, 101, 5, 7},
		{7, 98, 97, 13, 22},   // more tiles than are computed at once
		{2, 131, 100, 62, 31}, // more channels than are multiplied at once
		// Only the gradient of the filters.
		{3, 40, 20, 2, 3},
		{4, 40, 100, 16, 16},
		{7, 17, 31, 13, 22},
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
			exact := convolve(t, plain, operands, torch.Double, torch.Double)
			shim.FastConvolutions(false)
			usual := convolve(t, plain, operands, torch.Float, torch.Float)
			shim.FastConvolutions(true)
			fast := convolve(t, plain, operands, torch.Float, torch.Float)

			for i, what := range []string{"output", "gradient of the input", "gradient of the filters"} {
				if i == 2 || c.in >= 96 || c.width >= 32 {
					assert.NotEqual(t, usual[i], fast[i], "%s: the fast convolution was not used", what)
				}
				got, libtorch := worst(exact[i], fast[i]), worst(exact[i], usual[i])
				t.Logf("%s: error over the largest value %.1e, libtorch's %.1e", what, got, libtorch)
				// The transforms lose some 2e-6 besides what a sum of so many terms does. A
				// wrong coefficient shows at 1e-2.
				assert.Less(t, got, 1e-5+2*libtorch, what)
			}
			assert.Less(t, worst(exact[3], fast[3]), 1e-5+2*worst(exact[3], usual[3]), "gradient of the bias")
		})
	}
}

// TestFastConvolutionsDoNotDependOnThreads: every sum has one order.
func TestFastConvolutionsDoNotDependOnThreads(t *testing.T) {
	before, native, threads := shim.FastConvolutions(true), shim.NativeBFloat16(false), shim.Threads()
	t.Cleanup(func() { shim.FastConvolutions(before); shim.NativeBFloat16(native); shim.SetThreads(threads) })
	rng := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct{ in, out, height, width int64 }{{40, 70, 45, 52}, {96, 100, 19, 18}} {
		operands := []operand{normal(rng, 1, 2, c.in, c.height, c.width), normal(rng, 1, c.out, c.in, 3, 3), normal(rng, 1, c.out), normal(rng, 1, 2, c.out, c.height, c.width)}
		for _, maps := range []int8{torch.Float, torch.BFloat16} {
			var want [4][]float64
			for _, n := range []int{1, 2, 3, 16} {
				shim.SetThreads(n)
				got := convolve(t, plain, operands, maps, torch.Float)
				if n == 1 {
					want = got
				}
				for i := range 3 {
					assert.Equal(t, want[i], got[i], "%d threads, result %d", n, i)
				}
			}
		}
	}
}

// TestFastConvolutionsDoNotDependOnTheBatch: an image has the same output alone and in company.
func TestFastConvolutionsDoNotDependOnTheBatch(t *testing.T) {
	before := shim.FastConvolutions(true)
	t.Cleanup(func() { shim.FastConvolutions(before) })
	const images, in, out = 5, 97, 98
	rng := rand.New(rand.NewPCG(11, 12))
	for _, size := range []int64{32, 18, 4} {
		x, w, b := normal(rng, 1, images, in, size, size), normal(rng, 1, out, in, 3, 3), normal(rng, 1, out)
		convolve := func(x operand) []float64 {
			n := x.shape[0]
			return convolve(t, plain, []operand{x, w, b, normal(rng, 1, n, out, size, size)}, torch.Float, torch.Float)[0]
		}
		all := convolve(x)
		one, result := in*size*size, out*size*size
		for i := range int64(images) {
			alone := convolve(operand{x.data[i*one : (i+1)*one], []int64{1, in, size, size}})
			require.Equal(t, all[i*result:(i+1)*result], alone, "image %d of %dx%d", i, size, size)
		}
	}
}

// toBFloat16 rounds values of float32's precision to bfloat16, to the even number between two.
func toBFloat16(o operand) operand {
	for i, v := range o.data {
		bits := math.Float32bits(float32(v))
		o.data[i] = float64(math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff))
	}
	return o
}

// rounding is the largest relative error of a number rounded to bfloat16, which has eight bits
// of precision, the first of which is not stored.
const rounding = 1. / 256

// requireRounded checks results that were computed in float32, of which want are the exact ones,
// and then perhaps rounded to bfloat16.
//
// An error is at most that of the rounding, which is relative to the result itself, plus that of
// the float32 computation, which is relative to the summands; these are not larger than the largest
// result by more than a few times. For sums of up to 131,072 products 2e-5 is enough.
func requireRounded(t *testing.T, want, got []float64, isRounded bool, what string) {
	t.Helper()
	largest := 0.0
	for _, v := range want {
		largest = max(largest, math.Abs(v))
	}
	for i, v := range want {
		allowed := 2e-5 * largest
		if isRounded {
			allowed += rounding * math.Abs(v)
		}
		if !(math.Abs(v-got[i]) <= allowed) { // require.InDelta takes a second for a million numbers
			require.InDelta(t, v, got[i], allowed, "%s, element %d", what, i)
		}
	}
}

// TestBFloat16Convolutions compares convolutions of bfloat16 maps, where libtorch would use plain
// loops, with libtorch's in float64 on the same numbers, in results and gradients. Where the
// filters are float32, they are not rounded, and neither are their gradients.
func TestBFloat16Convolutions(t *testing.T) {
	native := shim.NativeBFloat16(false)
	t.Cleanup(func() { shim.NativeBFloat16(native) })
	pairs := func(stride, padding, dilation, groups int64) convolution {
		return convolution{[]int64{stride, stride}, []int64{padding, padding}, []int64{dilation, dilation}, none, false, groups, false, false}
	}
	last := pairs(1, 1, 1, 1)
	last.channelsLast = true
	part := pairs(1, 0, 1, 1)
	part.part = true
	uneven := convolution{[]int64{1, 2}, []int64{2, 0}, []int64{2, 1}, none, false, 1, false, false}
	back := convolution{[]int64{2, 2}, ones, ones, ones, true, 1, false, false}
	backGroups := convolution{ones, none, []int64{2, 2}, none, true, 2, true, false}
	for name, c := range map[string]struct {
		convolution
		input, filters, output []int64
	}{
		"winograd":               {plain, []int64{1, 17, 33, 61}, []int64{19, 17, 3, 3}, []int64{1, 19, 33, 61}},
		"winograd, two images":   {plain, []int64{2, 16, 40, 77}, []int64{24, 16, 3, 3}, []int64{2, 24, 40, 77}},
		"winograd, past cache":   {plain, []int64{2, 16, 256, 256}, []int64{64, 16, 3, 3}, []int64{2, 64, 256, 256}},
		"channels last":          {last, []int64{2, 16, 40, 77}, []int64{24, 16, 3, 3}, []int64{2, 24, 40, 77}},
		"winograd, small":        {plain, []int64{2, 99, 5, 7}, []int64{98, 99, 3, 3}, []int64{2, 98, 5, 7}},
		"winograd, filters":      {plain, []int64{3, 17, 2, 1}, []int64{24, 17, 3, 3}, []int64{3, 24, 2, 1}},
		"small":                  {plain, []int64{1, 16, 3, 7}, []int64{24, 16, 3, 3}, []int64{1, 24, 3, 7}},
		"one pixel":              {plain, []int64{1, 3, 1, 1}, []int64{2, 3, 3, 3}, []int64{1, 2, 1, 1}},
		"7x7, stride 2":          {pairs(2, 3, 1, 1), []int64{2, 3, 37, 41}, []int64{8, 3, 7, 7}, []int64{2, 8, 19, 21}},
		"1x1":                    {pairs(1, 0, 1, 1), []int64{2, 6, 91, 92}, []int64{5, 6, 1, 1}, []int64{2, 5, 91, 92}}, // 8,372 pixels
		"1x1, part":              {part, []int64{2, 6, 9, 11}, []int64{5, 6, 1, 1}, []int64{2, 5, 9, 11}},
		"1x1, stride 2":          {pairs(2, 0, 1, 1), []int64{3, 12, 9, 11}, []int64{5, 12, 1, 1}, []int64{3, 5, 5, 6}},
		"1x1, pieces of a batch": {pairs(8, 0, 1, 1), []int64{3, 4, 640, 640}, []int64{5, 4, 1, 1}, []int64{3, 5, 80, 80}},
		"dilation 2":             {pairs(1, 2, 2, 1), []int64{2, 16, 33, 35}, []int64{16, 16, 3, 3}, []int64{2, 16, 33, 35}},
		"groups":                 {pairs(1, 1, 1, 4), []int64{2, 16, 33, 35}, []int64{8, 4, 3, 3}, []int64{2, 8, 33, 35}},
		"depthwise":              {pairs(2, 1, 1, 6), []int64{2, 6, 15, 17}, []int64{12, 1, 3, 3}, []int64{2, 12, 8, 9}},
		"uneven":                 {uneven, []int64{2, 4, 12, 15}, []int64{3, 4, 3, 2}, []int64{2, 3, 12, 7}},
		"transposed":             {back, []int64{2, 5, 6, 9}, []int64{5, 4, 3, 3}, []int64{2, 4, 12, 18}},
		"transposed, groups":     {backGroups, []int64{2, 4, 6, 9}, []int64{4, 3, 3, 3}, []int64{2, 6, 10, 13}},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 6))
			terms := float64(size(c.filters) / c.filters[0])
			operands := []operand{
				toBFloat16(normal(rng, 1, c.input...)),
				normal(rng, 1/math.Sqrt(terms), c.filters...),
				normal(rng, 1, c.output[1]),
				toBFloat16(normal(rng, 1, c.output...)),
			}
			check := func(filters int8) {
				want := convolve(t, c.convolution, operands, torch.Double, torch.Double)
				got := convolve(t, c.convolution, operands, torch.BFloat16, filters)
				narrow := filters == torch.BFloat16
				requireRounded(t, want[0], got[0], true, "output")
				requireRounded(t, want[1], got[1], true, "gradient of the input")
				requireRounded(t, want[2], got[2], narrow, "gradient of the filters")
				requireRounded(t, want[3], got[3], narrow, "gradient of the bias")
			}
			check(torch.Float)
			operands[1], operands[2] = toBFloat16(operands[1]), toBFloat16(operands[2])
			check(torch.BFloat16)
			if strings.HasPrefix(name, "winograd") {
				golden.AVX2(t)
				fast := convolve(t, c.convolution, operands, torch.BFloat16, torch.Float)
				defer shim.FastConvolutions(shim.FastConvolutions(false))
				require.NotEqual(t, convolve(t, c.convolution, operands, torch.BFloat16, torch.Float)[2], fast[2], "it was used")
			}
		})
	}
}

// TestNativeBFloat16Convolutions: where libtorch computes in bfloat16, filters of float32 are
// rounded to bfloat16 first.
func TestNativeBFloat16Convolutions(t *testing.T) {
	native := shim.NativeBFloat16(true)
	t.Cleanup(func() { shim.NativeBFloat16(native) })
	rng := rand.New(rand.NewPCG(7, 8))
	operands := []operand{normal(rng, 1, 2, 3, 4, 5), normal(rng, 1, 4, 3, 3, 3), normal(rng, 1, 4), normal(rng, 1, 2, 4, 4, 5)}
	got := convolve(t, plain, operands, torch.BFloat16, torch.Float)
	require.Equal(t, convolve(t, plain, operands, torch.BFloat16, torch.BFloat16), got)
	shim.NativeBFloat16(false)
	require.NotEqual(t, convolve(t, plain, operands, torch.BFloat16, torch.Float), got, "the two ways round in other places")
}

// TestMatMul: under autocast the result is rounded to bfloat16, but the operands are not where the
// processor would compute in bfloat16 by plain loops; without autocast it is libtorch's operator.
func TestMatMul(t *testing.T) {
	native := shim.NativeBFloat16(false)
	t.Cleanup(func() { shim.NativeBFloat16(native) })
	rng := rand.New(rand.NewPCG(13, 14))
	a, b := normal(rng, 1, 3, 5, 40), normal(rng, 1, 3, 40, 7)
	product := func(dtype int8, autocast bool) (results [3][]float64, of int8) {
		shim.Scope(func() {
			leaves := [2]torch.Tensor{}
			for i, o := range []operand{a, b} {
				x, err := shim.FromSlice(o.data, shim.Device{}, o.shape...)
				require.NoError(t, err)
				leaves[i] = to(t, x, dtype)
				require.NoError(t, shim.SetRequiresGrad(leaves[i], true))
			}
			var y torch.Tensor
			multiply := func() {
				var err error
				y, err = shim.MatMul(leaves[0], leaves[1])
				require.NoError(t, err)
				info, err := shim.Inspect(y)
				require.NoError(t, err)
				of = int8(info.DType)
				results[0] = make([]float64, size(info.Shape))
				require.NoError(t, shim.ToSlice(y, results[0]))
			}
			if autocast {
				require.NoError(t, shim.Autocast(false, torch.BFloat16, multiply))
			} else {
				multiply()
			}
			require.NoError(t, shim.Backward(call(t, opSum, to(t, y, torch.Double)), false))
			for i, l := range leaves {
				g, ok, err := shim.Grad(l)
				require.NoError(t, err)
				require.True(t, ok)
				results[1+i] = make([]float64, size([]operand{a, b}[i].shape))
				require.NoError(t, shim.ToSlice(g, results[1+i]))
			}
		})
		return results, of
	}
	exact, _ := product(torch.Double, false)
	single, of := product(torch.Float, false)
	require.EqualValues(t, torch.Float, of)
	got, of := product(torch.Float, true)
	require.EqualValues(t, torch.BFloat16, of)
	for i, what := range []string{"product", "gradient of the left", "gradient of the right"} {
		requireRounded(t, exact[i], single[i], false, what)
		requireRounded(t, exact[i], got[i], i == 0, what)
	}
	shim.NativeBFloat16(true)
	rounded, of := product(torch.Float, true)
	require.EqualValues(t, torch.BFloat16, of)
	require.NotEqual(t, got[0], rounded[0], "the operands were rounded here, and only here")

	_, err := shim.MatMul(torch.Tensor{}, torch.Tensor{})
	require.ErrorContains(t, err, "matmul")
}

// TestConv2d: without autocast it is libtorch's operator; with it the result has the type that
// autocast gives, and the parameters are used as they are.
func TestConv2d(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	leaf := func(dtype int8, shape ...int64) torch.Tensor {
		x, err := shim.FromSlice(normal(rng, 1, shape...).data, shim.Device{}, shape...)
		require.NoError(t, err)
		x = to(t, x, dtype)
		require.NoError(t, shim.SetRequiresGrad(x, true))
		return x
	}
	dtype := func(x torch.Tensor) int8 {
		info, err := shim.Inspect(x)
		require.NoError(t, err)
		return int8(info.DType)
	}
	geometry := []any{[]int64{2, 2}, ones, ones, int64(1)}
	for _, maps := range []int8{torch.Float, torch.BFloat16, torch.Double} {
		x, w, b := leaf(maps, 2, 3, 6, 7), leaf(torch.Float, 4, 3, 3, 3), leaf(torch.Float, 4)
		if maps == torch.Double {
			w, b = leaf(maps, 4, 3, 3, 3), leaf(maps, 4)
		}
		if maps != torch.BFloat16 {
			y, err := shim.Conv2d(x, w, b, 2, 1, 1, 1)
			require.NoError(t, err)
			require.Equal(t, values(t, call(t, opConv2d, append([]any{x, w, b}, geometry...)...)), values(t, y))
		}
		require.NoError(t, shim.Autocast(false, torch.BFloat16, func() {
			want := call(t, opConv2d, append([]any{x, w, b}, geometry...)...)
			y, err := shim.Conv2d(x, w, b, 2, 1, 1, 1)
			require.NoError(t, err)
			require.Equal(t, dtype(want), dtype(y))
			wide := values(t, want)
			for i, v := range values(t, y) {
				require.InDelta(t, wide[i], v, 0.1, "filters are rounded to bfloat16, or not") // 27 products of size 1
			}
			require.NoError(t, shim.Backward(call(t, opSum, y), false))
		}))
		for _, l := range []torch.Tensor{x, w, b} {
			g, ok, err := shim.Grad(l)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, dtype(l), dtype(g))
		}
	}
	_, err := shim.Conv2d(leaf(torch.Float, 1, 2, 3, 3), leaf(torch.Float, 1, 3, 3, 3), torch.Tensor{}, 1, 1, 1, 1)
	require.ErrorContains(t, err, "conv2d")
	require.NoError(t, shim.Autocast(false, torch.BFloat16, func() {
		_, err = shim.Conv2d(leaf(torch.Float, 1, 2, 3, 3), leaf(torch.Float, 1, 3, 3, 3), torch.Tensor{}, 1, 1, 1, 1)
		require.ErrorContains(t, err, "channels")
	}))
}
