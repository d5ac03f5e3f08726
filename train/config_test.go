package train_test

import (
	"encoding/json"
	"testing"

	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// A configuration is equal after it was written to JSON and read back. Its constants are
// words in JSON.
func TestConfigJSON(t *testing.T) {
	other := train.Config{
		Loss:         loss.Config{{Weight: 0.5, Parameters: loss.DefaultDice()}},
		MicroBatches: 3, SyncBatchNorm: true, Optimizer: nn.DefaultSGD(), Precision: train.Float16, Seed: 7,
	}
	for _, c := range []train.Config{train.Default(), train.Kernel(), other} {
		require.NoError(t, c.Check())
		text, err := json.Marshal(c)
		require.NoError(t, err)
		var back train.Config
		require.NoError(t, json.Unmarshal(text, &back), string(text))
		require.Equal(t, c, back)
	}
	text, err := json.Marshal(train.Kernel())
	require.NoError(t, err)
	require.Contains(t, string(text), `"micro_batches":4,"accumulation":"notebook","clip":1,"weight_decay":0.01`)
	require.Contains(t, string(text), `"batch_norm_momentum":0.025,"sync_batch_norm":false,"precision":"float32"`)
	var c train.Config
	require.ErrorContains(t, json.Unmarshal([]byte(`{"precision":"float8"}`), &c), `precision "float8"; wanted float32, bfloat16 or float16`)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"accumulation":"sum"}`), &c), `accumulation "sum"; wanted mean or notebook`)
}

func TestPhaseJSON(t *testing.T) {
	for _, s := range []train.Schedule{train.OneCycle{}, train.Constant{}, train.Cosine{}, train.Poly{}} {
		p := train.Phase{Name: "full", Epochs: 3, Rates: []float64{1e-3, 2e-3}, Frozen: true, Schedule: s}
		text, err := json.Marshal(p)
		require.NoError(t, err)
		var back train.Phase
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, p, back)
	}
	var p train.Phase
	require.NoError(t, json.Unmarshal([]byte(`{"epochs":2,"rates":[1]}`), &p))
	require.Equal(t, train.OneCycle{}, p.Schedule)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"schedule":"two_cycle"}`), &p), "wanted one_cycle, constant, cosine or poly")
	text, err := json.Marshal(train.Phase{Schedule: sawtooth{}})
	require.NoError(t, err)
	require.Error(t, json.Unmarshal(text, &p), "one of a user's own cannot come back")
}

// TestFallingSchedules checks the ends and the middle of the schedules. Cosine is
// torch.optim.lr_scheduler.CosineAnnealingLR(T_max=8), Poly is (1 - i/n)^0.9 as in
// PolynomialLR.
func TestFallingSchedules(t *testing.T) {
	for _, c := range []struct {
		s    train.Schedule
		i    int
		want float64
	}{
		{train.Constant{}, 0, 2}, {train.Constant{}, 7, 2},
		{train.Cosine{}, 0, 2}, {train.Cosine{}, 4, 1}, {train.Cosine{}, 8, 0}, {train.Cosine{}, 9, 0},
		{train.Poly{}, 0, 2}, {train.Poly{}, 4, 1.0717734625362931}, {train.Poly{}, 8, 0}, // 2*0.5**0.9
	} {
		rates, momentum := c.s.At(c.i, 8, []float64{2, 4})
		require.InDeltaSlice(t, []float64{c.want, 2 * c.want}, rates, 1e-15)
		require.Equal(t, 0.9, momentum)
	}
}
