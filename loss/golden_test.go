package loss_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// TestGolden compares values and gradients with the public implementations:
// testdata/make.py.
func TestGolden(t *testing.T) {
	var all struct {
		Inputs map[string]struct {
			Shape   []int64
			Scores  []float64
			Targets []int64
		}
		Cases []struct {
			Name       string
			Parameters json.RawMessage
			Input      string
			Value      float64
			Grad       []float64
		}
	}
	b, err := os.ReadFile("testdata/losses.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &all))
	require.NotEmpty(t, all.Cases)
	for _, c := range all.Cases {
		t.Run(fmt.Sprintf("%s %s %s", c.Name, c.Input, c.Parameters), func(t *testing.T) {
			var config loss.Config
			require.NoError(t, json.Unmarshal(fmt.Appendf(nil, `[{"name": %q, "parameters": %s}]`, c.Name, c.Parameters), &config))
			in := all.Inputs[c.Input]
			output, classes := data.Softmax, int(in.Shape[1])
			if c.Input[len(c.Input)-1] != '3' && c.Input != "softmax2" {
				output, classes = data.Sigmoid, classes+1
			}
			l, err := config.New(output, classes)
			require.NoError(t, err)
			require.Equal(t, c.Name, l.String())
			value, grad := evaluate(t, l, in.Scores, in.Targets, in.Shape)
			// Tens of operations in float64 on numbers around 1.
			require.InDelta(t, c.Value, value, 1e-13)
			golden.Close(t, "gradient", grad, c.Grad, 1e-12)
		})
	}
}

// evaluate returns a loss of scores in float64, and its gradient.
func evaluate(t testing.TB, l loss.Loss, scores []float64, targets, shape []int64) (value float64, grad []float64) {
	t.Helper()
	return evaluateAs(t, nn.Double, l, scores, targets, shape)
}

func evaluateAs(t testing.TB, dtype nn.DType, l loss.Loss, scores []float64, targets, shape []int64) (value float64, grad []float64) {
	t.Helper()
	err := nn.Try(func() {
		nn.Scope(func() {
			x, err := nn.FromSlice(testdevice.Device, scores, shape...)
			require.NoError(t, err)
			x = nn.To(x, testdevice.Device, dtype)
			nn.SetRequiresGrad(x, true)
			y, err := nn.FromSlice(testdevice.Device, targets, shape[0], shape[2], shape[3])
			require.NoError(t, err)
			v := l.Forward(x, y)
			require.Empty(t, nn.Shape(v))
			require.NoError(t, nn.Backward(v))
			value, err = nn.Item(v)
			require.NoError(t, err)
			g, ok := nn.Grad(x)
			require.True(t, ok)
			grad, err = nn.Slice[float64](g)
			require.NoError(t, err)
		})
	})
	require.NoError(t, err)
	return value, grad
}
