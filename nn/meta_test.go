package nn_test

import (
	"math"
	"testing"

	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// The largest finite gradient is finite, an infinity or a NaN anywhere is not.
func TestGradFinite(t *testing.T) {
	var parameters []nn.Named
	for range 3 {
		p := nn.Full(nn.CPU, nn.Float, 1, 2, 2)
		nn.SetRequiresGrad(p, true)
		parameters = append(parameters, nn.Named{Tensor: p})
	}
	check := func(want bool) {
		t.Helper()
		finite, err := nn.GradFinite(parameters)
		require.NoError(t, err)
		require.Equal(t, want, finite)
	}
	check(true)
	for _, v := range []float64{1, math.MaxFloat32, math.Inf(1), math.Inf(-1), math.NaN()} {
		require.NoError(t, nn.DropGrad(parameters))
		require.NoError(t, nn.Backward(nn.Sum(parameters[0].Tensor)))
		require.NoError(t, nn.Backward(nn.MulScalar(nn.Select(nn.Select(parameters[2].Tensor, 0, 1), 0, 0), v)))
		check(!math.IsInf(v, 0) && !math.IsNaN(v))
	}
}

func TestParsePrecision(t *testing.T) {
	for s, want := range map[string]nn.DType{"float32": nn.Float, "bfloat16": nn.BFloat16, "float16": nn.Half} {
		d, err := nn.ParsePrecision(s)
		require.NoError(t, err)
		require.Equal(t, want, d)
	}
	_, err := nn.ParsePrecision("float64")
	require.EqualError(t, err, `nn: precision "float64", wanted float32, bfloat16 or float16`)
}

// Any operator can be called; what it refuses is an *Error.
func TestCall(t *testing.T) {
	x := float32Tensor(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3)
	require.Equal(t, []float64{1, 3, 6, 4, 9, 15}, values(t, nn.Call("cumsum", x, 1, nn.Double)[0]))
	parts := nn.Call("split.Tensor", x, 2, 1)
	require.Len(t, parts, 2)
	require.Equal(t, []float64{3, 6}, values(t, parts[1]))
	require.Equal(t, nn.Meta, nn.DeviceOf(nn.Call("zeros", []int64{2}, nil, nil, nn.Meta)[0]))
	var refused *nn.Error
	require.ErrorAs(t, nn.Try(func() { nn.Call("cumsum", x, 7) }), &refused)
	require.ErrorAs(t, nn.Try(func() { nn.Call("no_such_operator", x) }), &refused)
	require.PanicsWithError(t, "nn: Call cumsum: argument 1 is a string", func() { nn.Call("cumsum", x, "1") })
}

// Wrong channels are an error in words, as wrong options are a panic.
func TestWrongChannels(t *testing.T) {
	in := nn.NewInit(nn.CPU, 1)
	x := nn.Zeros(nn.CPU, nn.Float, 1, 1, 4, 4)
	for layer, l := range map[string]nn.Layer{"Conv2d": nn.NewConv2d(in, 3, 4, 3, nil), "ConvTranspose2d": nn.NewConvTranspose2d(in, 3, 4, 2, 2, 0)} {
		require.EqualError(t, nn.Try(func() { l.Forward(nn.Eval, x) }), layer+": input of shape [1 1 4 4], wanted (N, 3, H, W)")
	}
	require.PanicsWithError(t, "nn: Conv2d: 2 groups do not divide 3 channels", func() { nn.NewConv2d(in, 4, 3, 3, &nn.ConvOptions{Groups: 2}) })
	require.PanicsWithError(t, "nn: GroupNorm: 2 groups do not divide 3 channels", func() { nn.NewGroupNorm(in, 2, 3) })
}

// Forward, loss and backward on the meta device; an operand that is on the CPU
// there is found.
func TestMeta(t *testing.T) {
	require.Equal(t, "meta", nn.Meta.String())
	w := nn.Zeros(nn.Meta, nn.Float, 3, 5)
	nn.SetRequiresGrad(w, true)
	step := func(target nn.Device) error {
		return nn.Try(func() {
			nn.Scope(func() {
				y := nn.LeakyReLU{Slope: 0.1}.Forward(nn.Train, nn.MatMul(nn.Zeros(nn.Meta, nn.Float, 2, 3), w))
				y = nn.MaxPool2d{Kernel: 1, Stride: 1}.Forward(nn.Train, nn.Reshape(y, 1, 1, 2, 5))
				y = nn.Resize{Factor: 2}.Forward(nn.Train, y)
				require.Equal(t, []int64{1, 1, 4, 10}, nn.Shape(y))
				require.NoError(t, nn.Backward(nn.Mean(nn.Mul(nn.Softmax(y, 3), nn.Zeros(target, nn.Float, 1, 1, 4, 10)))))
			})
		})
	}
	require.NoError(t, step(nn.Meta))
	g, ok := nn.Grad(w)
	require.True(t, ok)
	require.Equal(t, nn.Meta, nn.DeviceOf(g))
	require.Equal(t, []int64{3, 5}, nn.Shape(g))
	require.ErrorContains(t, step(nn.CPU), "device")
	_, err := nn.Item(nn.Zeros(nn.Meta, nn.Float, 1))
	require.Error(t, err, "there is no value")
}
