package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// shrinking is a model that, like a U-Net, concatenates an image with a version that was
// halved and doubled again. It therefore cannot take images of odd size.
type shrinking struct{ conv *nn.Conv2d }

func (m shrinking) Forward(mode nn.Mode, x torch.Tensor) torch.Tensor {
	down := nn.MaxPool2d{Kernel: 2, Stride: 2}.Forward(mode, x)
	size := nn.Shape(down)
	return m.conv.Forward(mode, nn.Cat(nn.ResizeNearest(down, 2*size[2], 2*size[3]), x))
}
func (m shrinking) Walk(w nn.Walker)          { w.Child("conv", m.conv) }
func (m shrinking) String() string            { return "shrinking" }
func (m shrinking) LayerGroups() [][]nn.Named { return [][]nn.Named{nn.Parameters(m)} }

// A bad batch is an error that names the batch, in training, in validation and in
// prediction, also if libtorch refuses it. The learner can be used afterwards.
func TestLibtorchErrors(t *testing.T) {
	good := formulaBatches("fail", 4, 2, 8, 0.3)
	channels := formulaBatches("fail", 1, 2, 8, 0.3)[0]
	channels.C, channels.Images = 2, channels.Images[:2*2*64]
	size := formulaBatches("fail", 1, 2, 7, 0.3)[0]
	short := formulaBatches("fail", 1, 2, 8, 0.3)[0]
	short.Images = short.Images[1:]
	untold := formulaBatches("fail", 1, 2, 8, 0.3)[0]
	untold.Targets = nil
	nothing := &feed.Batch{}
	for name, c := range map[string]struct {
		batch     *feed.Batch
		want      string
		predicted bool // prediction needs no targets
	}{
		"class":    {wrongClass(), "a target of class 5 at pixel 6 of image 1 of the batch; the task has classes 0 to 1", false},
		"channels": {channels, "images of 2 channels; the task has 3", false},
		"size":     {size, "libtorch: cat", false},
		"short":    {short, "has 383 image values", false},
		"untold":   {untold, "has 0 target values", true},
		"nothing":  {nothing, "batch of 0x0x0x0", false},
	} {
		t.Run(name, func(t *testing.T) {
			in := nn.NewInit(nn.CPU, 1)
			tr := learner(t, shrinking{nn.NewConv2d(in, 6, 2, 1, nil)}, mean(2, 0))
			phase := train.Phase{Name: "full", Epochs: 2, Rates: []float64{1e-3}}
			bad := append(append(batches{}, good[:3]...), c.batch)

			_, err := tr.Fit(context.Background(), bad, nil, phase)
			require.ErrorContains(t, err, "train: full, epoch 0: batch 3: ")
			require.ErrorContains(t, err, c.want)
			if strings.HasPrefix(c.want, "libtorch") {
				var refused *nn.Error
				require.ErrorAs(t, err, &refused)
			}

			_, err = tr.Fit(context.Background(), good, bad, phase)
			require.ErrorContains(t, err, "train: full, epoch 1: validation, batch 3: ")
			require.ErrorContains(t, err, c.want)

			seen := 0
			err = tr.Predict(context.Background(), bad, train.FlipAverage, func(*train.Prediction) error { seen++; return nil })
			if c.predicted {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, "train: predicting batch 3, images from 6 on: ")
				require.ErrorContains(t, err, c.want)
				require.Equal(t, 6, seen)
			}

			_, err = tr.Fit(context.Background(), good, good, phase)
			require.NoError(t, err)
			require.True(t, shim.GradEnabled())
		})
	}
}

// If the loss is NaN, the error names batch, step and images, and Fit returns the epochs
// before.
func TestLossIsNaN(t *testing.T) {
	source := formulaBatches("fail", 3, 2, 8, 0.3)
	tr := learner(t, newTiny(t, nn.Float), mean(1, 0), train.Hook{EpochEnd: func(metric.Epoch) error {
		source[2].Images[100] = float32(math.NaN())
		return nil
	}})
	epochs, err := tr.Fit(context.Background(), source, nil, train.Phase{Name: "frozen", Epochs: 3, Rates: train.SameRates(1e-3, 3), Frozen: true})
	require.ErrorContains(t, err, "train: frozen, epoch 1: batch 2: step 5, learning rate ")
	require.ErrorContains(t, err, ", images image 4, image 5: the loss is NaN")
	require.Len(t, epochs, 1)
}

// If the loss is finite but the gradient is not, the weights do not change, with and
// without clipping.
func TestGradientIsInfinite(t *testing.T) {
	root := loss.Func{Name: "root of zero", F: func(scores, _ torch.Tensor) torch.Tensor {
		y := nn.Mean(scores)
		return nn.NewOp("sqrt").Call(nn.Sub(y, nn.Detach(y)))
	}}
	for _, clip := range []float64{0, 1} {
		model := newTiny(t, nn.Float)
		before := state(t, model)
		l, err := train.New(model, rgb(), mean(1, clip), &train.Parts{Loss: root})
		require.NoError(t, err)
		_, err = l.Fit(context.Background(), formulaBatches("fail", 1, 2, 8, 0.3), nil, train.Phase{Name: "full", Epochs: 1, Rates: train.SameRates(1e-3, 3)})
		require.ErrorContains(t, err, "train: full, epoch 0: batch 0: step 0, learning rate ")
		require.ErrorContains(t, err, "the norm of the gradient is ")
		after := state(t, model)
		for _, p := range nn.Parameters(model) {
			want, _ := before.Lookup(p.Name)
			got, _ := after.Lookup(p.Name)
			require.Equal(t, want.Data, got.Data, p.Name)
		}
	}
}

// If the context is cancelled, Fit and Predict stop before the next batch.
func TestCancel(t *testing.T) {
	source := formulaBatches("fail", 3, 2, 8, 0.3)
	ctx, cancel := context.WithCancel(context.Background())
	seen := 0
	tr := learner(t, newTiny(t, nn.Float), mean(1, 0), train.Hook{BatchEnd: func(train.BatchInfo) error {
		if seen++; seen == 4 {
			cancel()
		}
		return nil
	}})
	epochs, err := tr.Fit(ctx, source, source, train.Phase{Name: "full", Epochs: 3, Rates: train.SameRates(1e-3, 3)})
	require.ErrorIs(t, err, context.Canceled)
	require.EqualError(t, err, "train: cancelled in full, epoch 1, after 1 batches")
	require.Len(t, epochs, 1)
	require.Equal(t, 4, seen)
	err = tr.Predict(ctx, source, train.NoFlip, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.EqualError(t, err, "train: cancelled in prediction, after 0 images")

	enough := errors.New("enough")
	require.ErrorIs(t, tr.Predict(context.Background(), source, train.NoFlip, func(*train.Prediction) error { return enough }), enough)
}

// New refuses configurations, tasks and parts that are impossible.
func TestNewRefuses(t *testing.T) {
	for want, change := range map[string]func(*train.Config, *data.Task, *train.Parts){
		"accumulation of -1":     func(c *train.Config, _ *data.Task, _ *train.Parts) { c.MicroBatches = -1 },
		"accumulation of 0":      func(c *train.Config, _ *data.Task, _ *train.Parts) { c.MicroBatches = 0 },
		"accumulation 9; wanted": func(c *train.Config, _ *data.Task, _ *train.Parts) { c.Accumulation = 9 },
		"precision 7; wanted":    func(c *train.Config, _ *data.Task, _ *train.Parts) { c.Precision = 7 },
		"float16 on cpu":         func(c *train.Config, _ *data.Task, _ *train.Parts) { c.Precision = train.Float16 },
		"clipped to -1":          func(c *train.Config, _ *data.Task, _ *train.Parts) { c.Clip = -1 },
		"clipped to NaN":         func(c *train.Config, _ *data.Task, _ *train.Parts) { c.Clip = math.NaN() },
		"momentum 2":             func(c *train.Config, _ *data.Task, _ *train.Parts) { c.BatchNorm = 2 },
		"weight decay NaN":       func(c *train.Config, _ *data.Task, _ *train.Parts) { c.WeightDecay = math.NaN() },
		"adam with eps NaN":      func(c *train.Config, _ *data.Task, _ *train.Parts) { c.Optimizer.Eps = math.NaN() },
		"1 means":                func(_ *train.Config, _ *data.Task, p *train.Parts) { p.Input.Mean = []float64{1} },
		"2 means for images of 3": func(_ *train.Config, _ *data.Task, p *train.Parts) {
			p.Input = train.Input{Mean: []float64{1, 1}, Std: []float64{1, 1}}
		},
		"standard deviation 0": func(_ *train.Config, _ *data.Task, p *train.Parts) {
			p.Input = train.Input{Mean: []float64{1, 1, 1}, Std: []float64{1, 0, 1}}
		},
		"mean NaN": func(_ *train.Config, _ *data.Task, p *train.Parts) {
			p.Input = train.Input{Mean: []float64{1, 1, math.NaN()}, Std: []float64{1, 1, 1}}
		},
		"a task of 1 classes": func(_ *train.Config, task *data.Task, _ *train.Parts) { task.Classes = task.Classes[:1] },
		`two hooks with a memory are called ""`: func(_ *train.Config, _ *data.Task, p *train.Parts) {
			p.Hooks = []train.Hook{{Memory: &train.EarlyStop{}}}
		},
	} {
		cfg, task, parts := train.Default(), rgb(), &train.Parts{}
		change(&cfg, &task, parts)
		if cfg.Precision == train.Float16 && testdevice.Device.CUDA() {
			continue
		}
		_, err := train.New(newTiny(t, nn.Float), task, cfg, parts)
		require.ErrorContains(t, err, want)
	}
}

// For a U-Net, New refuses a task with another number of channels, and Fit refuses images
// of a wrong size before the first step.
func TestNetRefuses(t *testing.T) {
	in := nn.NewInit(nn.CPU, 1)
	net := unet.New(in, resnet.New18(in, 3), 2, unet.Config{})
	task := rgb()
	task.Channels = 1
	_, err := train.New(net, task, train.Default(), nil)
	require.ErrorContains(t, err, "the model takes images of 3 channels, the input makes 1 of the task's 1")
	_, err = train.New(net, task, train.Default(), &train.Parts{Input: train.Input{Mean: []float64{0, 0, 0}, Std: []float64{1, 1, 1}}})
	require.NoError(t, err)
	before := state(t, net)
	_, err = learner(t, net, train.Default()).Fit(context.Background(), formulaBatches("fail", 1, 2, 50, 0.3), nil,
		train.Phase{Name: "all", Epochs: 1, Rates: train.SameRates(1, 3)})
	require.ErrorContains(t, err, "images are 50x50; height and width must be multiples of 32, resize or pad them to 64x64")
	require.Equal(t, before, state(t, net))
}

// Fit refuses impossible phases and sources.
func TestFitRefuses(t *testing.T) {
	tr := learner(t, newTiny(t, nn.Float), train.Default())
	good := formulaBatches("fail", 1, 2, 8, 0.3)
	for want, c := range map[string]struct {
		phase  train.Phase
		source feed.Source
	}{
		"-1 epochs":                       {train.Phase{Epochs: -1, Rates: train.SameRates(1, 3)}, good},
		"0 epochs":                        {train.Phase{Rates: train.SameRates(1, 3)}, good},
		"2 learning rates":                {train.Phase{Epochs: 1, Rates: train.SameRates(1, 2)}, good},
		"learning rate NaN":               {train.Phase{Epochs: 1, Rates: train.SameRates(math.NaN(), 3)}, good},
		"learning rate 0":                 {train.Phase{Epochs: 1, Rates: train.SameRates(0, 3)}, good},
		"learning rate +Inf":              {train.Phase{Epochs: 1, Rates: train.SameRates(math.Inf(1), 3)}, good},
		"no training batch":               {train.Phase{Epochs: 1, Rates: train.SameRates(1, 3)}, batches{}},
		"yields 0 batches, not 3":         {train.Phase{Epochs: 1, Rates: train.SameRates(1, 3)}, lying{}},
		"gives rate NaN to layer group 0": {train.Phase{Epochs: 1, Rates: train.SameRates(1, 3), Schedule: broken{}}, good},
	} {
		_, err := tr.Fit(context.Background(), c.source, nil, c.phase)
		require.ErrorContains(t, err, want)
	}
}

// broken is a schedule whose rates are NaN.
type broken struct{}

func (broken) At(_, _ int, highest []float64) ([]float64, float64) {
	return train.SameRates(math.NaN(), len(highest)), 0.9
}

// Training, prediction and errors leave no tensors behind.
func TestHandles(t *testing.T) {
	model := newTiny(t, nn.Float)
	tr := learner(t, model, mean(2, 1))
	source := formulaBatches("fail", 5, 2, 8, 0.3)
	bad := append(append(batches{}, source...), wrongClass())
	phase := train.Phase{Epochs: 2, Rates: train.SameRates(1e-3, 3)}
	elsewhere := onDevice(t, newTiny(t, nn.Float), mean(2, 1), plenty)
	images := planned{loaderOf(t, pixelFilms(5, 8), feed.LoaderOptions{Batch: 2, Augment: new(augment.Default())})}
	round := func() {
		_, err := tr.Fit(context.Background(), source, source, phase)
		require.NoError(t, err)
		_, err = tr.Fit(context.Background(), bad, nil, phase)
		require.Error(t, err)
		_, err = tr.FindRate(context.Background(), source, &train.FindOptions{Iterations: 5})
		require.NoError(t, err)
		require.NoError(t, tr.Predict(context.Background(), source, train.FlipAverage, func(*train.Prediction) error { return nil }))
		_, err = elsewhere.Fit(context.Background(), images, nil, phase)
		require.NoError(t, err)
	}
	round()
	before := settledHandles()
	for range 5 {
		round()
	}
	require.LessOrEqual(t, settledHandles(), before+1, "one may belong to the last call of settledHandles")
}

// settledHandles returns the number of tensor handles in use. A dropped handle is counted
// until Go's garbage collector has found it and a later call of libtorch has freed it, so
// settledHandles waits until the number no longer falls; this can take many rounds on a
// busy machine.
func settledHandles() int64 {
	least, since := shim.LiveHandles(), 0
	for range 100 {
		runtime.GC()
		time.Sleep(50 * time.Millisecond)
		nn.Scope(func() { nn.Zeros(nn.CPU, nn.Float, 1) })
		since++
		if n := shim.LiveHandles(); n < least {
			least, since = n, 0
		}
		if since == 8 {
			break
		}
	}
	return least
}

// Fit frees the optimizer's averages and the gradients when it returns, without waiting for
// Go's garbage collector.
func TestFitFreesAtOnce(t *testing.T) {
	in := nn.NewInit(nn.CPU, 1)
	wide := func(from, to, kernel int64) nn.Layer {
		return nn.NewConv2d(in, from, to, kernel, &nn.ConvOptions{Padding: kernel / 2})
	}
	model := &plain{nn.Sequential{wide(3, 512, 1), wide(512, 512, 3), wide(512, 2, 1)}} // 9 MiB of parameters
	tr := learner(t, model, mean(1, 0))
	source := formulaBatches("fail", 1, 1, 8, 0.3)
	fit := func(times int) {
		for range times {
			_, err := tr.Fit(context.Background(), source, nil, train.Phase{Epochs: 1, Rates: []float64{1e-6}})
			require.NoError(t, err)
		}
	}
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	fit(2)
	before := residentMiB(t)
	fit(8)
	grown := residentMiB(t) - before
	t.Logf("grown by %.1f MiB", grown)
	require.Less(t, grown, 60.0, "without this, the averages of eight calls are 144 MiB")
}

// Memory does not grow over 500 steps. If each step leaked one feature map of 64 KiB, it
// would grow by 31 MiB; if each step leaked one handle, there would be 500 more.
func TestMemoryIsFlat(t *testing.T) {
	tr := learner(t, newTiny(t, nn.Float), mean(1, 1))
	source := formulaBatches("fail", 20, 1, 64, 0.3)
	fit := func(epochs int) {
		_, err := tr.Fit(context.Background(), source, source[:1], train.Phase{Epochs: epochs, Rates: train.SameRates(1e-4, 3)})
		require.NoError(t, err)
	}
	fit(5)
	handles, before := settledHandles(), residentMiB(t)
	fit(25)
	grown := residentMiB(t) - before
	t.Logf("%.1f MiB grown by %.1f, %d handles by %d", before, grown, handles, settledHandles()-handles)
	require.Less(t, grown, 8.0)
	require.LessOrEqual(t, settledHandles(), handles+1, "one may belong to the last call of settledHandles")
}

// If the last step makes the weights infinite, Fit returns an error.
func TestLastStepDiverges(t *testing.T) {
	for name, cfg := range map[string]train.Config{"mean": mean(1, 0), "notebook": notebook(2, 0)} {
		_, err := learner(t, newTiny(t, nn.Float), cfg).Fit(context.Background(), formulaBatches("fail", 1, 2, 8, 0.3), nil,
			train.Phase{Name: "all", Epochs: 1, Rates: train.SameRates(1e37, 3), Schedule: train.Constant{}}) // Adam's first step computes with rate/(1-0.9) = 1e38, near the limit of float32
		require.ErrorContains(t, err, "train: all, epoch 0, its end: the norm of the weights is ", name)
	}
}

// residentMiB returns the resident memory of the process in MiB.
func residentMiB(t *testing.T) float64 {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skipf("resident memory is read from /proc: %v", err)
	}
	var size, resident int
	_, err = fmt.Sscan(string(statm), &size, &resident)
	require.NoError(t, err)
	return float64(resident) * float64(os.Getpagesize()) / (1 << 20)
}
