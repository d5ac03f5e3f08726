package train_test

import (
	"math"
	"testing"

	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

var byDice = train.Criterion{Value: dice}

// row returns an epoch with a validation loss and a Dice.
func row(epoch int, validLoss, d float64) metric.Epoch {
	return metric.Epoch{Epoch: epoch, Values: metric.Values{{Name: metric.ValidLoss, Value: validLoss}, {Name: dice, Value: d}}}
}

// TestBest gives KeepBest the same losses and Dices as golden/scripts/b10.py gave fastai
// 1.0.54's SaveModelCallback, and compares the epochs at which it saved:
// golden/b10_misc/misc.json, "save_model.*".
func TestBest(t *testing.T) {
	losses := []float64{0.9, 0.8, 0.85, 0.8, 0.7, math.NaN(), 0.75, 0.69}
	dices := []float64{0.1, 0.3, 0.2, 0.3, 0.5, 0.4, 0.6, 0.6}
	for _, c := range []struct {
		by    train.Criterion
		saved []int
	}{
		{train.ByLoss, []int{0, 1, 4, 7}},
		{byDice, []int{0, 1, 4, 6}},
	} {
		model := newTiny(t, nn.Double)
		bias := nn.Parameters(model)[8].Tensor // c.0.bias
		best := train.KeepBest(model, c.by, 1)
		_, ok := best.Epoch()
		require.False(t, ok)
		require.Error(t, best.Restore())
		last := 0
		for e := range losses {
			// The bias is set to the number of the epoch.
			nn.CopyInto(bias, nn.Full(nn.CPU, nn.Double, float64(e), 2))
			require.NoError(t, best.Observe(row(e, losses[e], dices[e])))
			got, ok := best.Epoch()
			require.True(t, ok)
			if len(c.saved) > 0 && c.saved[0] == e {
				last, c.saved = e, c.saved[1:]
			}
			require.Equal(t, last, got.Epoch)
		}
		require.NoError(t, best.Restore())
		v, err := nn.Slice[float64](bias)
		require.NoError(t, err)
		require.Equal(t, []float64{float64(last), float64(last)}, v)
	}
}

// Without a validation there is no best epoch, and Restore is an error.
func TestBestWithoutValidation(t *testing.T) {
	best := train.KeepBest(newTiny(t, nn.Double), byDice, 2)
	require.NoError(t, best.Observe(metric.Epoch{}))
	require.NoError(t, best.Observe(row(1, math.NaN(), math.NaN())))
	_, ok := best.Epoch()
	require.False(t, ok)
	require.ErrorContains(t, best.Restore(), "none had a validation")
}
