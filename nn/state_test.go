package nn_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// chain returns a small network with every kind of tensor: kernels, biases, running
// statistics, a count of batches, and singular vectors.
func chain(seed uint64) nn.Sequential {
	in := nn.NewInit(testdevice.Device, seed)
	return nn.Sequential{
		nn.NewConv2d(in, 2, 3, 3, &nn.ConvOptions{Padding: 1, Norm: nn.NormSpectral}),
		nn.NewBatchNorm2d(in, 3, nil),
		nn.NewConv2d(in, 3, 1, 1, nil),
	}
}

// A state is saved as safetensors and loaded into the existing tensors of another
// network.
func TestStateRoundTrip(t *testing.T) {
	from, to := chain(1), chain(2)
	from.Forward(nn.Train, nn.Full(testdevice.Device, nn.Float, 0.5, 1, 2, 4, 5)) // changes the statistics and the count
	f, err := nn.SaveState(from)
	require.NoError(t, err)
	var file bytes.Buffer
	require.NoError(t, checkpoint.WriteSafetensors(&file, f))
	f, err = checkpoint.ReadSafetensors(&file)
	require.NoError(t, err)

	before := nn.State(to)
	require.NotEqual(t, values(t, before[1].Tensor), values(t, nn.State(from)[1].Tensor))
	require.NoError(t, nn.LoadState(to, f))
	for i, n := range nn.State(to) {
		want := nn.State(from)[i]
		require.Equal(t, want.Name, n.Name)
		require.Equal(t, values(t, want.Tensor), values(t, n.Tensor), n.Name)
		require.Equal(t, nn.DTypeOf(want.Tensor), nn.DTypeOf(n.Tensor), n.Name)
		require.Equal(t, !n.Buffer, nn.RequiresGrad(n.Tensor), n.Name)
		require.Same(t, before[i].Tensor.T, n.Tensor.T, "%s: another tensor took its place", n.Name)
	}
}

// A tensor of another element type is converted when it is loaded.
func TestLoadConverts(t *testing.T) {
	net := chain(1)
	f, err := nn.SaveState(net)
	require.NoError(t, err)
	for i, c := range f.Tensors {
		if c.Name == "2.bias" {
			f.Tensors[i] = checkpoint.Tensor{Name: c.Name, DType: checkpoint.F64, Shape: c.Shape,
				Data: binary.LittleEndian.AppendUint64(nil, 0x3ff8000000000000)} // 1.5
		}
	}
	require.NoError(t, nn.LoadState(net, f))
	require.Equal(t, []float64{1.5}, values(t, nn.State(net)[len(nn.State(net))-1].Tensor))
}

// A checkpoint that does not fit changes nothing, and the error names every difference.
func TestLoadMismatch(t *testing.T) {
	net := chain(1)
	f, err := nn.SaveState(chain(2))
	require.NoError(t, err)
	f.Tensors = slices.DeleteFunc(f.Tensors, func(c checkpoint.Tensor) bool { return c.Name == "1.weight" || c.Name == "2.bias" })
	for i, c := range f.Tensors {
		if c.Name == "2.weight" {
			f.Tensors[i].Shape = []int{1, 1, 3, 1}
		}
	}
	f.Tensors = append(f.Tensors, checkpoint.FromFloat32("fc.bias", []float32{1}, 1))
	before := values(t, nn.State(net)[0].Tensor)
	var mismatch *nn.Mismatch
	require.True(t, errors.As(nn.LoadState(net, f), &mismatch))
	require.Equal(t, []string{"1.weight", "2.bias"}, mismatch.Missing)
	require.Equal(t, []string{"fc.bias"}, mismatch.Extra)
	require.Equal(t, []string{"2.weight: [1 1 3 1], wanted [1 3 1 1]"}, mismatch.Misshape)
	require.Equal(t, before, values(t, nn.State(net)[0].Tensor))
	for _, part := range []string{"2 missing: 1.weight, 2.bias", "1 extra: fc.bias", "1 of another shape: 2.weight"} {
		require.ErrorContains(t, mismatch, part)
	}
}

// The error's text shortens long lists; the error value holds them whole.
func TestMismatchIsShort(t *testing.T) {
	err := &nn.Mismatch{Missing: []string{"a", "b", "c", "d", "e", "f", "g"}, Extra: []string{"h", "i", "j", "k", "l"}}
	require.EqualError(t, err, "nn: the checkpoint does not fit the model:\n7 missing: a, b, c, d, e and 2 more\n5 extra: h, i, j, k, l")
}

// Checkpoints of old PyTorch versions, which have no counts of batches, can be loaded.
func TestLoadWithoutCount(t *testing.T) {
	f, err := nn.SaveState(chain(2))
	require.NoError(t, err)
	f.Tensors = slices.DeleteFunc(f.Tensors, func(c checkpoint.Tensor) bool { return c.Name == "1.num_batches_tracked" })
	require.NoError(t, nn.LoadState(chain(1), f))
}

// A tensor whose data does not fit its shape is an error, and nothing is loaded.
func TestLoadBroken(t *testing.T) {
	net := chain(1)
	f, err := nn.SaveState(net)
	require.NoError(t, err)
	last := len(f.Tensors) - 1
	f.Tensors[0].Data[0]++
	f.Tensors[last].Data = f.Tensors[last].Data[:2]
	before := values(t, nn.State(net)[0].Tensor)
	require.ErrorContains(t, nn.LoadState(net, f), "2.bias: 2 bytes")
	require.Equal(t, before, values(t, nn.State(net)[0].Tensor), "half of it was loaded")
}

// The names of tensors begin with the names of the parts, and Owner is the layer.
func TestState(t *testing.T) {
	var names []string
	for _, n := range nn.State(chain(1)) {
		names = append(names, n.Name)
		_, norm := n.Owner.(*nn.BatchNorm2d)
		require.Equal(t, n.Name[0] == '1', norm, n.Name)
	}
	require.Equal(t, []string{
		"0.bias", "0.weight_orig", "0.weight_u", "0.weight_v",
		"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
		"2.weight", "2.bias",
	}, names)
	require.Len(t, nn.Parameters(chain(1)), 6)
}

// Try returns libtorch's errors and does not recover other panics.
func TestTry(t *testing.T) {
	require.NoError(t, nn.Try(func() {}))

	var libtorch *nn.Error
	a, b := nn.Zeros(nn.CPU, nn.Float, 2, 3), nn.Zeros(nn.CPU, nn.Float, 2, 4)
	require.True(t, errors.As(nn.Try(func() { nn.Add(a, b) }), &libtorch))
	require.Equal(t, "add", libtorch.Op)
	require.True(t, errors.As(nn.Try(func() { torch.Add(a, b, 1) }), &libtorch), "gotorch's own panic")
	require.True(t, errors.As(nn.Try(func() { nn.Add(a, torch.Tensor{}) }), &libtorch), "a tensor without a handle")

	ours := errors.New("ours")
	require.PanicsWithValue(t, ours, func() { _ = nn.Try(func() { panic(ours) }) })
	require.Panics(t, func() { _ = nn.Try(func() { _ = []int{}[len(t.Name())] }) })
}

// Try also returns the errors that gotorch functions without a result store.
func TestTryPending(t *testing.T) {
	vector := nn.Full(nn.CPU, nn.Float, 1, 2)
	nn.SetRequiresGrad(vector, true)
	err := nn.Try(func() { nn.MulScalar(vector, 2).Backward() })
	require.ErrorContains(t, err, "scalar")
	require.NoError(t, nn.Try(func() {}))
}

// A number of channels that is too small is a panic.
func TestWidths(t *testing.T) {
	in := nn.NewInit(nn.CPU, 1)
	require.Panics(t, func() { nn.NewConv2d(in, 0, 3, 3, nil) })
	require.Panics(t, func() { nn.NewBatchNorm2d(in, -1, nil) })
	require.Panics(t, func() { nn.NewSelfAttention(in, 7) })
}

// Initial values depend only on the seed.
func TestInit(t *testing.T) {
	kernel := func(in *nn.Init) []float64 { return values(t, nn.NewConv2d(in, 2, 3, 3, nil).Weight(nn.Eval)) }
	require.Equal(t, kernel(nn.NewInit(nn.CPU, 5)), kernel(nn.NewInit(nn.CPU, 5)))
	require.NotEqual(t, kernel(nn.NewInit(nn.CPU, 5)), kernel(nn.NewInit(nn.CPU, 6)))
	require.Equal(t, kernel(&nn.Init{}), kernel(nn.NewInit(nn.CPU, 0)), "the zero Init")
	require.Equal(t, kernel(&nn.Init{}), kernel(&nn.Init{DType: nn.Double}), "the same values in another type")
}

func TestParseDevice(t *testing.T) {
	d, err := nn.ParseDevice("cpu")
	require.NoError(t, err)
	require.Equal(t, nn.CPU, d)
	_, err = nn.ParseDevice("auto")
	require.NoError(t, err)
	for _, s := range []string{"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:99", "cuda:0x0"} {
		_, err := nn.ParseDevice(s)
		require.Error(t, err, s)
	}
}

// The initial weight of a batch norm may be zero, and its initial bias any number.
func TestBatchNormOptions(t *testing.T) {
	bn := nn.NewBatchNorm2d(&nn.Init{DType: nn.Double}, 2, &nn.BatchNormOptions{Bias: 0.25, Gain: nn.GainZero})
	x := nn.Full(nn.CPU, nn.Double, 3, 1, 2, 2, 2)
	require.Equal(t, []float64{.25, .25, .25, .25, .25, .25, .25, .25}, values(t, bn.Forward(nn.Train, x)))
	nn.SetBatchNormMomentum(nn.Sequential{bn}, 0.4)
	require.Equal(t, 0.4, bn.Momentum)
}
