package unet_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// The initial values of the decoder have fastai's distribution, those of the encoder
// torchvision's: weights of convolutions are normal with mean 0 and variance 2/fan,
// biases are 0, weights of batch norms are 1, and their biases 0, or 1e-3 in the
// decoder.
func TestInitialization(t *testing.T) {
	for _, n := range nn.State(newKernelNet()) {
		v := values(t, n.Tensor)
		kind := n.Name[strings.LastIndexByte(n.Name, '.')+1:]
		_, norm := n.Owner.(*nn.BatchNorm2d)
		encoder := strings.HasPrefix(n.Name, "layers.0.")
		constant := math.NaN()
		switch {
		case kind == "running_mean" || kind == "num_batches_tracked":
			constant = 0
		case kind == "running_var" || norm && kind == "weight":
			constant = 1
		case norm && kind == "bias" && !encoder:
			constant = 1e-3
		case kind == "bias":
			constant = 0
		}
		if !math.IsNaN(constant) {
			for _, x := range v {
				require.Equal(t, float64(float32(constant)), x, n.Name)
			}
			continue
		}
		shape := nn.Shape(n.Tensor)
		fan := shape[1] * shape[2] * shape[3]
		if encoder {
			fan = shape[0] * shape[2] * shape[3]
		}
		std := math.Sqrt(2 / float64(fan))
		draws := v
		if strings.Contains(n.Name, ".shuf.") || strings.HasPrefix(n.Name, "layers.8.") { // ICNR
			row := int(shape[1])
			draws = nil
			for g := 0; g < len(v); g += 4 * row {
				for i := 1; i < 4; i++ {
					require.True(t, slices.Equal(v[g:g+row], v[g+i*row:g+(i+1)*row]), "%s: group %d", n.Name, g/4/row)
				}
				draws = append(draws, v[g:g+row]...)
			}
			require.NotEqual(t, draws[:row], draws[row:2*row], n.Name)
		}
		checkNormal(t, n.Name, draws, std)
	}
}

// checkNormal fails if mean, standard deviation or kurtosis of the draws is more than
// five standard errors away from that of a normal distribution with mean 0 and standard
// deviation std.
func checkNormal(t *testing.T, name string, draws []float64, std float64) {
	t.Helper()
	m := momentsOf(draws)
	n := float64(len(draws))
	require.InDelta(t, 0, m.mean/std, 5/math.Sqrt(n), name)
	require.InDelta(t, 1, m.std/std, 5/math.Sqrt(2*n), name)
	fourth := 0.0
	for _, x := range draws {
		fourth += math.Pow((x-m.mean)/m.std, 4)
	}
	require.InDelta(t, 3, fourth/n, 5*math.Sqrt(24/n), name)
}

// TestInitializationAgainstReference compares mean and standard deviation of each
// parameter with those of fastai's new network.
func TestInitializationAgainstReference(t *testing.T) {
	var facts struct {
		Init map[string]struct {
			Shape     []int64
			Mean, Std float64
			FanIn     float64 `json:"kaiming_fan_in_std"`
			FanOut    float64 `json:"kaiming_fan_out_std"`
		} `json:"init_stats"`
	}
	golden.JSON(t, "b1_forward/facts.json", &facts)
	parameters := nn.Parameters(newKernelNet())
	require.Len(t, parameters, len(facts.Init))
	for _, p := range parameters {
		want, ok := facts.Init[p.Name]
		require.True(t, ok, p.Name)
		m := momentsOf(values(t, p.Tensor))
		n := 1.0
		for _, d := range want.Shape {
			n *= float64(d)
		}
		if want.Std == 0 {
			require.InDelta(t, want.Mean, m.mean, 1e-7, p.Name) // float32
			require.InDelta(t, 0, m.std, 1e-12, p.Name)
			continue
		}
		n /= 4 // ICNR kernels have groups of four equal values
		require.InDelta(t, 1, m.std/want.Std, 5/math.Sqrt(n), p.Name)
		require.InDelta(t, want.Mean/want.Std, m.mean/want.Std, 7/math.Sqrt(n), p.Name)
	}
}
