package nn_test

import (
	"testing"

	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// Op calls any operator. A call that libtorch refuses is an *Error.
func TestOp(t *testing.T) {
	x := float32Tensor(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3)
	require.Equal(t, []float64{1, 3, 6, 4, 9, 15}, values(t, nn.NewOp("cumsum").Call(x, 1, nn.Double)))
	parts := nn.NewOp("split.Tensor").CallAll(x, 2, 1)
	require.Len(t, parts, 2)
	require.Equal(t, []float64{3, 6}, values(t, parts[1]))
	require.Equal(t, nn.Meta, nn.DeviceOf(nn.NewOp("zeros").Call([]int64{2}, nil, nil, nn.Meta)))
	var refused *nn.Error
	require.ErrorAs(t, nn.Try(func() { nn.NewOp("cumsum").Call(x, 7) }), &refused)
	require.ErrorAs(t, nn.Try(func() { nn.NewOp("no_such_operator").Call(x) }), &refused)
	require.PanicsWithError(t, "nn: operator cumsum: argument 1 is a string", func() { nn.NewOp("cumsum").Call(x, "1") })
}

// An input with the wrong number of channels is an error; options that do not fit are a
// panic.
func TestWrongChannels(t *testing.T) {
	in := nn.NewInit(nn.CPU, 1)
	x := nn.Zeros(nn.CPU, nn.Float, 1, 1, 4, 4)
	for layer, l := range map[string]nn.Layer{"Conv2d": nn.NewConv2d(in, 3, 4, 3, nil), "ConvTranspose2d": nn.NewConvTranspose2d(in, 3, 4, 2, nil)} {
		require.EqualError(t, nn.Try(func() { l.Forward(nn.Eval, x) }), layer+": input of shape [1 1 4 4], wanted (N, 3, H, W)")
	}
	require.PanicsWithError(t, "nn: Conv2d: 2 groups do not divide 3 channels", func() { nn.NewConv2d(in, 4, 3, 3, &nn.ConvOptions{Groups: 2}) })
	require.PanicsWithError(t, "nn: GroupNorm: 2 groups do not divide 3 channels", func() { nn.NewGroupNorm(in, 2, 3) })
}

// Forward, loss and backward run on the meta device, and an operand that is on the CPU
// instead is an error.
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
