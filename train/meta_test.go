package train_test

import (
	"context"
	"testing"

	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// linear is a matrix that makes two scores of each pixel's three values.
type linear struct{ weight torch.Tensor }

func (m linear) Forward(_ nn.Mode, x torch.Tensor) torch.Tensor {
	size := nn.Shape(x)
	return nn.Reshape(nn.MatMul(m.weight, nn.Reshape(x, size[0], 3, -1)), size[0], 2, size[2], size[3])
}

func (m linear) Walk(w nn.Walker) { w.Param("weight", m.weight) }
func (m linear) String() string   { return "linear" }

// Batches run on the meta device, where an operand that was left on the CPU is an
// error, as it would be on CUDA: the input's mean and deviation, the targets, the
// loss, the gradients. Libtorch 1.13 has no meta form of convolutions, of their
// cross-entropy, and of the operators on lists with which gradients become a step.
func TestBatchesOnMeta(t *testing.T) {
	squares := loss.Func{Name: "squares", F: func(scores, targets torch.Tensor) torch.Tensor {
		miss := nn.Sub(nn.Select(scores, 1, 1), nn.To(targets, nn.DeviceOf(targets), nn.Float))
		return nn.Mean(nn.Mul(miss, miss))
	}}
	fit := func(f func(scores, targets torch.Tensor) torch.Tensor) (batches int, err error) {
		weight := nn.Zeros(nn.Meta, nn.Float, 2, 3)
		nn.SetRequiresGrad(weight, true)
		l, err := train.New(linear{weight}, rgb(), mean(4, 0), &train.Parts{
			Input: train.Input{Mean: []float64{1, 2, 3}, Std: []float64{1, 2, 3}},
			Loss:  loss.Func{Name: "squares", F: f},
			Hooks: []train.Hook{{BatchEnd: func(b train.BatchInfo) error {
				batches++
				return at(batches == 3, train.Stop) // before a step
			}}},
		})
		require.NoError(t, err)
		_, err = l.Fit(context.Background(), formulaBatches("laws", 3, 2, 8, 0.3), nil, train.Phase{Epochs: 1, Rates: []float64{1e-3}})
		return batches, err
	}
	batches, err := fit(squares.F)
	require.NoError(t, err)
	require.Equal(t, 3, batches)
	_, err = fit(func(scores, targets torch.Tensor) torch.Tensor {
		return squares.F(scores, nn.Zeros(nn.CPU, nn.Long, 2, 8, 8))
	})
	require.Error(t, err, "targets left on the CPU")
}
