package train_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// onMeta trains a model on the meta device for one epoch of two batches and returns the
// number of steps.
func onMeta(t *testing.T, model train.Model, cfg train.Config, task data.Task, l loss.Loss) (steps int, err error) {
	t.Helper()
	learner, err := train.New(model, task, cfg, &train.Parts{
		Input: train.Input{Mean: []float64{1, 2, 3}, Std: []float64{1, 2, 3}},
		Loss:  l,
		Hooks: []train.Hook{{StepEnd: func(train.StepInfo) error { steps++; return nil }}},
	})
	require.NoError(t, err)
	_, err = learner.Fit(context.Background(), formulaBatches("laws", 2, 2, 32, 0.3), nil,
		train.Phase{Epochs: 1, Rates: train.SameRates(1e-3, learner.LayerGroups())})
	return steps, err
}

// layersOnMeta returns a model on the meta device with layers that a U-Net does not have,
// and with a batch norm on device d.
func layersOnMeta(classes int64, d nn.Device) train.Model {
	in := nn.NewInit(nn.Meta, 1)
	return nn.Sequential{
		nn.NewConv2d(in, 3, 8, 3, &nn.ConvOptions{Padding: 1}), nn.NewGroupNorm(in, 2, 8), nn.NewSelfAttention(in, 8),
		nn.NewBatchNorm2d(nn.NewInit(d, 1), 8, nil), nn.GELU{}, nn.NewDropout(0.5),
		nn.NewConvTranspose2d(in, 8, classes, 3, &nn.ConvTransposeOptions{Stride: 1, Padding: 1}),
	}
}

// Complete training steps run on the meta device: of a real network, and with each optimizer
// and each kind of accumulation.
func TestStepsOnMeta(t *testing.T) {
	in := nn.NewInit(nn.Meta, 1)
	small := layersOnMeta(2, nn.Meta)
	sgd := train.Default()
	sgd.Optimizer = nn.DefaultSGD()
	for _, c := range []struct {
		model train.Model
		cfg   train.Config
		want  int
	}{
		{unet.New(in, resnet.New18(in, 3), 2, unet.Config{}), train.Default(), 2},
		{small, train.Kernel(), 1},
		{small, sgd, 2},
	} {
		steps, err := onMeta(t, c.model, c.cfg, rgb(), nil)
		require.NoError(t, err)
		require.Equal(t, c.want, steps)
	}
}

// Each loss runs on the meta device. An operand or a weight that is on the CPU instead is an
// error, as it would be on CUDA.
func TestLeftOnCPU(t *testing.T) {
	sigmoid := rgb()
	sigmoid.Output = data.Sigmoid
	for _, c := range []struct {
		task   data.Task
		losses []loss.Parameters
	}{
		{rgb(), []loss.Parameters{loss.CrossEntropy{}, loss.DefaultDice(), loss.DefaultJaccard(), loss.DefaultTversky(), loss.DefaultFocal(), loss.Lovasz{}}},
		{sigmoid, []loss.Parameters{loss.BCE{}, loss.DefaultDice()}},
	} {
		for _, p := range c.losses {
			t.Run(fmt.Sprintf("%s/%T", c.task.Output, p), func(t *testing.T) {
				cfg := train.Default()
				cfg.Loss = loss.Config{{Weight: 1, Parameters: p}}
				steps, err := onMeta(t, layersOnMeta(int64(c.task.Outputs()), nn.Meta), cfg, c.task, nil)
				require.NoError(t, err)
				require.Equal(t, 2, steps)
			})
		}
	}
	wrong := loss.Func{Name: "wrong", F: func(scores, _ torch.Tensor) torch.Tensor {
		return nn.Mean(nn.Mul(scores, nn.Zeros(nn.CPU, nn.Float, 2, 2, 32, 32)))
	}}
	_, err := onMeta(t, layersOnMeta(2, nn.Meta), train.Default(), rgb(), wrong)
	require.ErrorContains(t, err, "device")
	_, err = onMeta(t, layersOnMeta(2, nn.CPU), train.Default(), rgb(), nil)
	require.ErrorContains(t, err, "native_batch_norm: expected all tensors to be on the same device")
}
