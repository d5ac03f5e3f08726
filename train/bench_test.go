package train_test

import (
	"testing"

	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// withGradients gives every parameter a gradient that is not zero: its own value.
func withGradients(tb testing.TB, params []nn.Named) {
	tb.Helper()
	require.NoError(tb, nn.Try(func() {
		nn.Scope(func(func(...torch.Tensor)) {
			for _, p := range params {
				require.NoError(tb, nn.Backward(nn.MulScalar(nn.Sum(nn.Mul(p.Tensor, p.Tensor)), 0.5)))
			}
		})
	}))
}

// BenchmarkAdam takes the steps of the notebook's network, 43 million parameters
// in 174 tensors and three groups.
func BenchmarkAdam(b *testing.B) {
	in := nn.NewInit(nn.CPU, 1)
	net := unet.New(in, resnet.New34(in, 3), unet.Config{})
	withGradients(b, nn.Parameters(net))
	adam, err := nn.NewAdam(net.LayerGroups(), nil)
	require.NoError(b, err)
	h := nn.Hyper{Rate: 1e-5, Beta1: 0.9, WeightDecay: 0.01}
	for b.Loop() {
		require.NoError(b, adam.Step([]nn.Hyper{h, h, h}))
	}
}

// BenchmarkClipGradNorm is one pass over the same gradients.
func BenchmarkClipGradNorm(b *testing.B) {
	in := nn.NewInit(nn.CPU, 1)
	net := unet.New(in, resnet.New34(in, 3), unet.Config{})
	params := nn.Parameters(net)
	withGradients(b, params)
	for b.Loop() {
		_, err := nn.ClipGradNorm(params, 1e9)
		require.NoError(b, err)
	}
}
