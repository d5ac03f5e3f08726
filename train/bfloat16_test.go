package train_test

import (
	"context"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
)

func precise(p train.Precision) train.Config {
	c := mean(1, 1)
	c.Precision = p
	return c
}

// In bfloat16, which has eight bits of precision, training of the Tiny model gives about
// the same losses as in float32.
func TestBFloat16Training(t *testing.T) {
	source := formulaBatches("b3.train", 4, 2, 8, 0.3)
	fit := func(p train.Precision) (losses []float64) {
		epochs, err := learner(t, newTiny(t, nn.Float), precise(p)).Fit(
			context.Background(), source, source, train.Phase{Epochs: 6, Rates: train.SameRates(1e-2, 3)})
		require.NoError(t, err)
		for _, e := range epochs {
			losses = append(losses, e.Value(metric.ValidLoss))
		}
		return losses
	}
	single, half := fit(train.Full), fit(train.BFloat16)
	require.Less(t, half[5], half[0]-0.05, "it learns")
	for i := range single {
		require.InDelta(t, single[i], half[i], 0.01, "epoch %d", i) // small against the fall of the loss
	}
	require.NotEqual(t, single, half, "bfloat16 is in use")
}

// The notebook's network with its folded head works in bfloat16: its probabilities are
// those of float32 up to the rounding of bfloat16 in some fifty layers, and all parameters
// get gradients in float32.
func TestBFloat16FullModel(t *testing.T) {
	if !golden.Long() {
		t.Skip("trains the full network; make test-long")
	}
	defer allThreads(t)()
	in := nn.NewInit(testdevice.Device, 1)
	net := unet.New(in, resnet.New34(in, 3), 2, unet.Config{})
	f := state(t, net)
	golden.Weights(f, "", nil)
	require.NoError(t, nn.LoadState(net, f))
	batch := formulaBatches("b3c.train", 1, 2, 32, 0.6)
	predict := func(p train.Precision) (prob []float32) {
		require.NoError(t, learner(t, net, precise(p)).Predict(context.Background(), batch, train.NoFlip,
			func(p *train.Prediction) error { prob = append(prob, p.Class(1)...); return nil }))
		return prob
	}
	worst := golden.Close(t, "probabilities", predict(train.BFloat16), predict(train.Full), 0.05)
	fit := func(p train.Precision) (losses []float64) {
		require.NoError(t, nn.LoadState(net, f))
		tr := learner(t, net, precise(p), train.Hook{
			BatchEnd: func(b train.BatchInfo) error { losses = append(losses, b.Loss); return nil },
			StepEnd: func(train.StepInfo) error {
				for _, p := range nn.Parameters(net) {
					g, ok := nn.Grad(p.Tensor)
					require.True(t, ok, p.Name)
					require.Equal(t, nn.Float, nn.DTypeOf(g), p.Name)
				}
				return nil
			},
		})
		_, err := tr.Fit(context.Background(), batch, nil, train.Phase{Epochs: 3, Rates: train.SameRates(1e-4, 3)})
		require.NoError(t, err)
		return losses
	}
	half, single := fit(train.BFloat16), fit(train.Full)
	t.Logf("worst error of a probability %.2g; losses %.3f, in float32 %.3f", worst, half, single)
	require.Less(t, half[2], half[0]-0.01, "it learns")
	require.Less(t, single[2], single[0]-0.01)
	// Not the third: the deepest maps have one pixel, so that batch norm divides by the
	// difference of two values. After two steps two float32 runs whose rounding differs are
	// 0.03 apart.
	require.InDeltaSlice(t, single[:2], half[:2], 0.01)
}
