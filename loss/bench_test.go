package loss_test

import (
	"fmt"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// Each loss, forward and backward, on two images of 256x256 with two channels.
func BenchmarkLoss(b *testing.B) {
	const n, c, size = 2, 2, 256
	scores, targets := draw("bench", 2, []int64{n, c, size, size})
	for _, output := range []data.Output{data.Softmax, data.Sigmoid} {
		classes := c
		if output == data.Sigmoid {
			classes++
		}
		configs := loss.Config{
			{Weight: 1, Parameters: loss.CrossEntropy{}},
			{Weight: 1, Parameters: loss.BCE{}},
			{Weight: 1, Parameters: loss.DefaultDice()},
			{Weight: 1, Parameters: loss.DefaultFocal()},
			{Weight: 1, Parameters: loss.Lovasz{}},
		}
		for _, config := range configs {
			l, err := config.Parameters.New(output, classes)
			if err != nil {
				continue // cross_entropy or bce, whichever is not for this output
			}
			b.Run(fmt.Sprint(output, "/", l), func(b *testing.B) {
				x, err := nn.FromSlice(nn.CPU, scores, n, c, size, size)
				require.NoError(b, err)
				x = nn.To(x, nn.CPU, nn.Float)
				nn.SetRequiresGrad(x, true)
				y, err := nn.FromSlice(nn.CPU, targets, n, size, size)
				require.NoError(b, err)
				for b.Loop() {
					nn.Scope(func() { require.NoError(b, nn.Backward(l.Forward(x, y))) })
				}
			})
		}
	}
}
