package train_test

import (
	"context"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
)

// In bfloat16, eight bits of precision, training of the Tiny model takes the same
// way as in float32.
func TestBFloat16Training(t *testing.T) {
	source := formulaBatches("b3.train", 4, 2, 8, 0.3)
	fit := func(bf16 bool) (losses []float64) {
		epochs, err := trainer(t, newTiny(t, nn.Float), train.Options{BFloat16: bf16, Clip: 1}).Fit(
			context.Background(), train.Phase{Epochs: 6, Rates: train.SameRates(1e-2, 3)}, source, source)
		require.NoError(t, err)
		for _, e := range epochs {
			losses = append(losses, e.ValidLoss)
		}
		return losses
	}
	single, half := fit(false), fit(true)
	require.Less(t, half[5], half[0]-0.05, "it learns")
	for i := range single {
		require.InDelta(t, single[i], half[i], 0.01, "epoch %d", i) // some percent of what is learnt
	}
	require.NotEqual(t, single, half, "bfloat16 is in use")
}

// The notebook's network, folded head and all, works in bfloat16: its probabilities
// are those of float32 to bfloat16's precision through some fifty layers, and its
// parameters get gradients.
func TestBFloat16FullModel(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the full network")
	}
	in := nn.NewInit(nn.CPU, 1)
	net := unet.New(in, resnet.New34(in, 3), 2, unet.Config{})
	f := state(t, net)
	golden.Weights(f, "", nil)
	require.NoError(t, nn.LoadState(net, f))
	batch := formulaBatches("b3c.train", 1, 2, 64, 0.6)
	predict := func(bf16 bool) (prob []float32) {
		require.NoError(t, trainer(t, net, train.Options{BFloat16: bf16}).Predict(context.Background(), batch, true,
			func(p train.Prediction) error { prob = append(prob, p.Prob...); return nil }))
		return prob
	}
	worst := golden.Close(t, "probabilities", predict(true), predict(false), 0.05)
	fit := func(bf16 bool) (losses []float64) {
		require.NoError(t, nn.LoadState(net, f))
		tr := trainer(t, net, train.Options{BFloat16: bf16, Clip: 1, Observe: train.Observer{
			Batch: func(b train.BatchInfo) { losses = append(losses, b.Loss) },
			Step: func(train.StepInfo) {
				for _, p := range nn.Parameters(net) {
					g, ok := nn.Grad(p.Tensor)
					require.True(t, ok, p.Name)
					require.Equal(t, nn.Float, nn.DTypeOf(g), p.Name)
				}
			},
		}})
		_, err := tr.Fit(context.Background(), train.Phase{Epochs: 6, Rates: train.SameRates(1e-4, 3)}, batch, nil)
		require.NoError(t, err)
		return losses
	}
	half, single := fit(true), fit(false)
	t.Logf("worst error of a probability %.2g; losses %.3f, in float32 %.3f", worst, half, single)
	require.Less(t, half[5], half[0]-0.03, "it learns")
	require.InDeltaSlice(t, single, half, 0.05)
}
