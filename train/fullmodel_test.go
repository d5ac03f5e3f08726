package train_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// fullModel has the results of one run of golden/scripts/b3c.py.
type fullModel struct {
	Events       []fastaiEvent
	RunningNorms map[string]float64 `json:"running_norms"`
}

// TestKernelFullModel trains the notebook's network of 43 million parameters for sixteen
// batches, as golden/scripts/b3c.py does, and compares losses, parameters and scores. It
// takes minutes. TestKernelTrajectories compares the training loop alone, the tests of
// package unet the network alone.
func TestKernelFullModel(t *testing.T) {
	if !golden.Long() {
		t.Skip("trains the full network for minutes; make test-long")
	}
	var runs map[string]fullModel
	golden.JSON(t, "b3_optim/full_model.json", &runs)
	tensors := golden.Tensors(t, "b3_optim/full_model.safetensors")
	exact := protocol(runs["f64"].Events)
	drift := torchDrift(protocol(runs["f32"].Events), exact)
	for _, c := range []struct {
		name      string
		dtype     nn.DType
		epsilon   nn.Epsilon
		run       string // the run of b3c.py to compare with
		tolerance func(i int) float64
		params    float64
	}{
		// Only the order of sums differs. Errors of 4e-15 for events and 9e-14 for
		// parameters and statistics were seen.
		{"f64", nn.Double, nn.EpsilonAfter, "f64", within(1e-13), 1e-12},
		{"f64_adam11", nn.Double, nn.EpsilonBefore, "f64_adam11", within(1e-13), 1e-12},
		// The error of float32 may be twice the largest error of PyTorch's own float32
		// run up to this event.
		{"f32", nn.Float, nn.EpsilonAfter, "f64", func(i int) float64 { return 2 * drift[i] }, 2e-3},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer allThreads(t)()
			in := &nn.Init{Device: testdevice.Device, DType: c.dtype}
			net := unet.New(in, resnet.New34(in, 3), 2, unet.Config{DetachSkips: true})
			f := state(t, net)
			golden.Weights(f, "", nil)
			require.NoError(t, nn.LoadState(net, f))
			byName := map[string]torch.Tensor{}
			for _, n := range nn.State(net) {
				byName[n.Name] = n.Tensor
			}
			values := func(name string) []float64 {
				v, err := nn.Slice[float64](byName[name])
				require.NoError(t, err)
				return v
			}
			var steps []fastaiEvent
			for _, e := range runs[c.run].Events {
				if e.Ev == "real_step" {
					steps = append(steps, e)
				}
			}
			worst := 0.0
			near := func(what string, got, want, scale float64) {
				d := math.Abs(got-want) / scale
				worst = max(worst, d)
				if !(d <= c.params) {
					t.Errorf("%s is %v, want %v: error %.3g", what, got, want, d)
				}
			}
			cfg := train.Kernel()
			cfg.Optimizer.Epsilon = c.epsilon
			events := follow(t, net, cfg, 1e-4, formulaBatches("b3c.train", 4, 4, 64, 0.6), formulaBatches("b3c.valid", 2, 4, 64, 0.6), func(step int) {
				for name, want := range steps[step].Params {
					v := values(name)
					var sum, squares, largest float64
					for _, x := range v {
						sum, squares, largest = sum+x, squares+x*x, max(largest, math.Abs(x))
					}
					at := fmt.Sprintf("step %d: %s: ", step, name)
					near(at+"norm", math.Sqrt(squares), want.Norm, want.Norm)
					near(at+"sum", sum, want.Sum, want.Norm*math.Sqrt(float64(len(v))))
					near(at+"first", v[0], want.First, largest)
					near(at+"last", v[len(v)-1], want.Last, largest)
				}
			})
			worstEvent := compare(t, events, protocol(runs[c.run].Events), c.tolerance)

			for name, want := range runs[c.run].RunningNorms {
				squares := 0.0
				for _, x := range values(name) {
					squares += x * x
				}
				near("norm of "+name, math.Sqrt(squares), want, want)
			}
			finals := 0
			if c.run == "f64" {
				for name := range byName {
					if _, ok := tensors["final."+name]; ok {
						finals++
						worst = max(worst, golden.Close(t, "final."+name, values(name), golden.Float64s(t, tensors, "final."+name), c.params))
					}
				}
				require.Equal(t, len(tensors)-3, finals)
			}
			var logits []float64
			require.NoError(t, nn.Try(func() {
				nn.Scope(func() {
					x, err := nn.FromSlice(testdevice.Device, formulaBatches("b3c.valid", 2, 4, 64, 0.6)[0].Images[:3*64*64], 1, 3, 64, 64)
					require.NoError(t, err)
					nn.NoGrad(func() { logits, err = nn.Slice[float64](net.Forward(nn.Eval, nn.To(x, testdevice.Device, c.dtype))) })
					require.NoError(t, err)
				})
			}))
			logit := golden.Close(t, "logits", logits, golden.Float64s(t, tensors, c.run+".logits_valid0"), c.params)
			t.Logf("%d events, worst error %.2g; %d tensors and the statistics, %.2g; logits %.2g", len(events), worstEvent, finals, worst, logit)
		})
	}
}

// torchDrift returns, for each event, the largest relative error of single up to this event,
// at least 1e-6.
func torchDrift(single, double []event) []float64 {
	drift := make([]float64, len(double))
	worst := 1e-6
	for i := range double {
		worst = max(worst, math.Abs(single[i].Value-double[i].Value)/math.Abs(double[i].Value))
		drift[i] = worst
	}
	return drift
}
