package shim_test

import (
	"math"
	"testing"

	"github.com/hcunet/hcunet/internal/shim"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

func roundTrip[N shim.Number](t *testing.T, dtype int8, data ...N) {
	t.Helper()
	x, err := shim.FromSlice(data, shim.Device{}, int64(len(data)), 1)
	require.NoError(t, err)
	info, err := shim.Inspect(x)
	require.NoError(t, err)
	assert.Equal(t, shim.Info{Defined: true, DType: dtype, Shape: []int64{int64(len(data)), 1}, Leaf: true}, info)
	back := make([]N, len(data))
	require.NoError(t, shim.ToSlice(x, back))
	assert.Equal(t, data, back)
	clear(data)
	require.NoError(t, shim.ToSlice(x, back))
	assert.NotEqual(t, data, back, "the tensor holds a copy")
}

func TestRoundTrip(t *testing.T) {
	roundTrip[float32](t, torch.Float, 1.5, -2, math.MaxFloat32)
	roundTrip[float64](t, torch.Double, 1e-300, 2)
	roundTrip[int64](t, torch.Long, math.MinInt64, 3)
	roundTrip[int32](t, torch.Int, math.MaxInt32, 3)
	roundTrip[int16](t, torch.Short, math.MinInt16, 3)
	roundTrip[int8](t, torch.Char, -128, 3)
	roundTrip[uint8](t, torch.Byte, 255, 3)
	roundTrip(t, torch.Bool, true, false)
}

func TestToSliceConverts(t *testing.T) {
	x := floats(t, []float32{0, 1.75, 200, 255}, 4)
	bytes := make([]uint8, 4)
	require.NoError(t, shim.ToSlice(x, bytes))
	assert.Equal(t, []uint8{0, 1, 200, 255}, bytes)
	doubles := make([]float64, 4)
	require.NoError(t, shim.ToSlice(x, doubles))
	assert.Equal(t, []float64{0, 1.75, 200, 255}, doubles)
}

func TestEmptyAndScalar(t *testing.T) {
	x, err := shim.FromSlice([]float32{}, shim.Device{}, 3, 0, 2)
	require.NoError(t, err)
	require.NoError(t, shim.ToSlice(x, []float32(nil)))
	info, err := shim.Inspect(x)
	require.NoError(t, err)
	assert.Equal(t, []int64{3, 0, 2}, info.Shape)
	assert.Equal(t, []float32{4}, values(t, floats(t, []float32{4})))
}

// The shape decides how much C++ reads: it must say exactly what the slice has.
func TestFromSliceWrongSize(t *testing.T) {
	data := make([]float32, 6)
	for _, shape := range [][]int64{
		{}, {5}, {7}, {2, 2}, {2, 3, 2}, {-1}, {-2, -3}, {0}, {6, -1}, {0, -1},
		{1 << 31, 1 << 31},           // 2^62 elements, 2^64 bytes: wraps to 0
		{1 << 40, 1 << 40},           // more than 2^64 elements
		{1 << 62, 4, 6},              // wraps to 0 elements
		{math.MaxInt64}, {1<<62 + 1}, // 4 bytes each: wraps
		{(1 << 62) + 6}, // wraps to exactly 24 bytes
	} {
		_, err := shim.FromSlice(data, shim.Device{}, shape...)
		assert.Error(t, err, "%v", shape)
	}
	_, err := shim.FromSlice([]float32{}, shim.Device{}, 1<<20, 1<<20, 0)
	require.NoError(t, err, "no element, whatever the other extents")
	_, err = shim.FromSlice(data, shim.Device{}, 2, 2)
	require.EqualError(t, err, "libtorch: from_data: shape [2, 2] of Float needs 16 bytes, the slice has 24")
}

func TestToSliceWrongSize(t *testing.T) {
	x := floats(t, make([]float32, 6), 2, 3)
	for _, n := range []int{0, 5, 7} {
		assert.Error(t, shim.ToSlice(x, make([]float32, n)))
	}
	assert.EqualError(t, shim.ToSlice(x, make([]uint8, 24)),
		"libtorch: read: a tensor of shape [2, 3], the slice has 24 elements")
}

func TestInspect(t *testing.T) {
	x := leaf(t)
	info, err := shim.Inspect(x)
	require.NoError(t, err)
	assert.True(t, info.RequiresGrad && info.Leaf)
	info, err = shim.Inspect(call(t, opMul, x, x))
	require.NoError(t, err)
	assert.True(t, info.RequiresGrad && !info.Leaf)

	image := filled(t, 1, 2, 3, 4, 5)
	const channelsLast = 2 // c10::MemoryFormat::ChannelsLast
	out, err := shim.NewOp("contiguous").Call(image, channelsLast)
	require.NoError(t, err)
	info, err = shim.Inspect(out[0])
	require.NoError(t, err)
	assert.True(t, info.ChannelsLast)

	_, err = shim.Inspect(torch.Tensor{})
	require.Error(t, err)
	var emptied torch.Tensor
	shim.Scope(func() { emptied = filled(t, 1, 2) })
	info, err = shim.Inspect(emptied)
	require.NoError(t, err)
	assert.Equal(t, shim.Info{Shape: []int64{}}, info)
	_, err = shim.Inspect(filled(t, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1))
	require.ErrorContains(t, err, "9 dimensions, at most 8")
}
