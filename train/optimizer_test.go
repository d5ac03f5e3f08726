package train_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
)

func names(groups [][]nn.Named) [][]string {
	out := make([][]string, len(groups))
	for i, g := range groups {
		out[i] = []string{}
		for _, p := range g {
			out[i] = append(out[i], p.Name)
		}
	}
	return out
}

// setGradient sets the gradient of p to values.
func setGradient(t *testing.T, p nn.Named, values []float64) {
	t.Helper()
	require.NoError(t, nn.DropGrad([]nn.Named{p}))
	require.NoError(t, nn.Try(func() {
		nn.Scope(func() {
			g, err := nn.FromSlice(testdevice.Device, values, nn.Shape(p.Tensor)...)
			require.NoError(t, err)
			require.NoError(t, nn.Backward(nn.Sum(nn.Mul(p.Tensor, g))))
		})
	}))
}

// TestAdamGolden compares ten steps with those of fastai's OptimWrapper in
// golden/b3_optim/optimwrapper: with decoupled and L2 decay, with and without decay of
// biases and norms, and with both places of Adam's epsilon.
func TestAdamGolden(t *testing.T) {
	var all map[string]struct {
		Groups [][]string
		Trace  []struct {
			LR, Mom, WD []float64
		}
	}
	golden.JSON(t, "b3_optim/optimwrapper.json", &all)
	want := golden.Tensors(t, "b3_optim/optimwrapper.safetensors")
	compared := 0
	for name, run := range all {
		t.Run(name, func(t *testing.T) {
			config := nn.DefaultAdam()
			if strings.HasPrefix(name, "l2wd") {
				config.Decay = nn.DecayL2
			}
			if strings.HasSuffix(name, "torch11") {
				config.Epsilon = nn.EpsilonBefore
			}
			decayAll := !strings.Contains(name, "nobnwd")
			model := newTiny(t, nn.Double)
			halves := nn.SplitDecay(model.LayerGroups())
			require.Equal(t, run.Groups, names(halves))
			adam, err := config.New(halves)
			require.NoError(t, err)
			worst := 0.0
			for step, s := range run.Trace {
				hyper := make([]nn.Hyper, len(halves))
				for h := range hyper {
					g := h / 2
					hyper[h] = nn.Hyper{Rate: s.LR[g], Momentum: s.Mom[g], WeightDecay: s.WD[g]}
					if h%2 == 1 && !decayAll {
						hyper[h].WeightDecay = 0
					}
				}
				for _, p := range nn.Parameters(model) {
					n := 1
					for _, d := range nn.Shape(p.Tensor) {
						n *= int(d)
					}
					g := make([]float64, n)
					for i, v := range golden.Fill(fmt.Sprintf("b3.grad.%s.%d", p.Name, step), n, 0, math.Pow(10, -float64(step%4))) {
						g[i] = float64(v)
						if step == 5 {
							g[i] *= 1e-7 // small gradients, for which the epsilon matters
						}
					}
					setGradient(t, p, g)
				}
				require.NoError(t, adam.Step(hyper))
				for _, p := range nn.Parameters(model) {
					got, err := nn.Slice[float64](p.Tensor)
					require.NoError(t, err)
					key := fmt.Sprintf("%s.step%d.%s", name, step, p.Name)
					// Ten steps with five roundings each, if all of them add up.
					worst = max(worst, golden.Close(t, key, got, golden.Float64s(t, want, key), 50*1.2e-16))
					compared++
				}
			}
			t.Logf("worst error %.2g", worst)
		})
	}
	require.Len(t, want, compared)
}

// TestGroups compares the parameters of each group of the notebook's network with those of
// fastai, frozen and not frozen.
func TestGroups(t *testing.T) {
	var want struct {
		LayerGroups [][]string `json:"layer_groups"`
		Frozen      struct {
			Trainable []string
			OptGroups [][]string `json:"opt_groups"`
		}
		Unfrozen struct {
			OptGroups [][]string `json:"opt_groups"`
		}
	}
	golden.JSON(t, "b4_schedule/schedule.json", &want)
	in := &nn.Init{Device: testdevice.Device}
	net := unet.New(in, resnet.New34(in, 3), 2, unet.Config{})
	require.Equal(t, want.LayerGroups, names(net.LayerGroups()))

	// If it is cancelled before its first batch, Fit freezes parameters and does nothing else.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tr := learner(t, net, train.Default())
	trainable := func(frozen bool) (names []string, size int64) {
		_, err := tr.Fit(ctx, formulaBatches("b3.train", 1, 1, 32, 0), nil, train.Phase{Epochs: 1, Rates: train.SameRates(1, 3), Frozen: frozen})
		require.ErrorIs(t, err, context.Canceled)
		for _, p := range nn.Parameters(net) {
			if nn.RequiresGrad(p.Tensor) {
				names = append(names, p.Name)
				n := int64(1)
				for _, d := range nn.Shape(p.Tensor) {
					n *= d
				}
				size += n
			}
		}
		return names, size
	}
	got, size := trainable(true)
	require.Equal(t, want.Frozen.Trainable, got)
	require.EqualValues(t, 21_964_705, size) // golden/README.md, B4
	require.Equal(t, want.Frozen.OptGroups, names(nn.SplitDecay(net.LayerGroups())))
	got, size = trainable(false)
	require.Len(t, got, 174)
	require.EqualValues(t, 43_232_353, size)
	require.Equal(t, want.Unfrozen.OptGroups, names(nn.SplitDecay(net.LayerGroups())))
}
