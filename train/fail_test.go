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

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// shrinking is a model that, as a U-Net does, joins an image with what it has
// made smaller and larger again: of an odd size it cannot be.
type shrinking struct{ conv *nn.Conv2d }

func (m shrinking) Forward(mode nn.Mode, x torch.Tensor) torch.Tensor {
	down := nn.MaxPool2d{Kernel: 2, Stride: 2}.Forward(mode, x)
	size := nn.Shape(down)
	return m.conv.Forward(mode, nn.Cat(nn.ResizeNearest(down, 2*size[2], 2*size[3]), x))
}
func (m shrinking) Walk(w nn.Walker)          { w.Child("conv", m.conv) }
func (m shrinking) String() string            { return "shrinking" }
func (m shrinking) LayerGroups() [][]nn.Named { return [][]nn.Named{nn.Parameters(m)} }

// What libtorch refuses comes back as an error that names the place, in training,
// in validation and in prediction; the trainer goes on working after it.
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
		"class":    {wrongClass(), "libtorch: cross_entropy_loss", true},
		"channels": {channels, "libtorch: conv2d", false},
		"size":     {size, "libtorch: cat", false},
		"short":    {short, "has 383 image values", false},
		"untold":   {untold, "has 0 target values", true},
		"nothing":  {nothing, "batch of 0x0x0x0", false},
	} {
		t.Run(name, func(t *testing.T) {
			in := nn.NewInit(nn.CPU, 1)
			tr := trainer(t, shrinking{nn.NewConv2d(in, 6, 2, 1, nil)}, train.Options{Accumulate: 2})
			phase := train.Phase{Name: "full", Epochs: 2, Rates: []float64{1e-3}}
			bad := append(append(batches{}, good[:3]...), c.batch)

			_, err := tr.Fit(context.Background(), phase, bad, nil)
			require.ErrorContains(t, err, "train: full, epoch 0: batch 3: ")
			require.ErrorContains(t, err, c.want)
			if strings.HasPrefix(c.want, "libtorch") {
				var refused *nn.Error
				require.ErrorAs(t, err, &refused)
			}

			_, err = tr.Fit(context.Background(), phase, good, bad)
			require.ErrorContains(t, err, "train: full, epoch 0: validation, batch 3: ")
			require.ErrorContains(t, err, c.want)

			seen := 0
			err = tr.Predict(context.Background(), bad, false, func(train.Prediction) error { seen++; return nil })
			if c.predicted {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, "train: predicting batch 3, images from 6 on: ")
				require.ErrorContains(t, err, c.want)
				require.Equal(t, 6, seen)
			}

			_, err = tr.Fit(context.Background(), phase, good, good)
			require.NoError(t, err)
			require.True(t, shim.GradEnabled())
		})
	}
}

// A loss that is not a number names its place and leaves the epochs before.
func TestLossIsNaN(t *testing.T) {
	source := formulaBatches("fail", 3, 2, 8, 0.3)
	tr := trainer(t, newTiny(t, nn.Float), train.Options{Observe: train.Observer{Epoch: func(train.Epoch) {
		source[2].Images[100] = float32(math.NaN())
	}}})
	epochs, err := tr.Fit(context.Background(), train.Phase{Name: "frozen", Epochs: 3, Rates: train.SameRates(1e-3, 3), Frozen: true}, source, nil)
	require.ErrorContains(t, err, "train: frozen, epoch 1: batch 2: the loss is NaN")
	require.Len(t, epochs, 1)
}

// Cancelled, Fit and Predict stop before the next batch.
func TestCancel(t *testing.T) {
	source := formulaBatches("fail", 3, 2, 8, 0.3)
	ctx, cancel := context.WithCancel(context.Background())
	seen := 0
	tr := trainer(t, newTiny(t, nn.Float), train.Options{Observe: train.Observer{Batch: func(train.BatchInfo) {
		if seen++; seen == 4 {
			cancel()
		}
	}}})
	epochs, err := tr.Fit(ctx, train.Phase{Name: "full", Epochs: 3, Rates: train.SameRates(1e-3, 3)}, source, source)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "epoch 1: batch 1")
	require.Len(t, epochs, 1)
	require.Equal(t, 4, seen)
	require.ErrorIs(t, tr.Predict(ctx, source, true, nil), context.Canceled)

	enough := errors.New("enough")
	require.ErrorIs(t, tr.Predict(context.Background(), source, true, func(train.Prediction) error { return enough }), enough)
}

func TestBadOptions(t *testing.T) {
	model := newTiny(t, nn.Float)
	for want, opt := range map[string]train.Options{
		"accumulation of -1":   {Accumulate: -1},
		"clipped to -1":        {Clip: -1},
		"clipped to NaN":       {Clip: math.NaN()},
		"momentum 2":           {BatchNorm: 2},
		"1 means":              {Input: train.Input{Mean: []float64{1}}},
		"standard deviation 0": {Input: train.Input{Mean: []float64{1}, Std: []float64{0}}},
	} {
		_, err := train.New(model, opt)
		require.ErrorContains(t, err, want)
	}
	tr := trainer(t, model, train.Options{})
	good := formulaBatches("fail", 1, 2, 8, 0.3)
	for want, c := range map[string]struct {
		phase  train.Phase
		source feed.Source
	}{
		"-1 epochs":         {train.Phase{Epochs: -1, Rates: train.SameRates(1, 3)}, good},
		"2 learning rates":  {train.Phase{Epochs: 1, Rates: train.SameRates(1, 2)}, good},
		"no training batch": {train.Phase{Epochs: 1, Rates: train.SameRates(1, 3)}, batches{}},
	} {
		_, err := tr.Fit(context.Background(), c.phase, c.source, nil)
		require.ErrorContains(t, err, want)
	}
	epochs, err := tr.Fit(context.Background(), train.Phase{Rates: train.SameRates(1, 3)}, good, nil)
	require.NoError(t, err)
	require.Empty(t, epochs)
}

// After training, prediction and errors no handle is left that Go does not hold.
func TestHandles(t *testing.T) {
	model := newTiny(t, nn.Float)
	tr := trainer(t, model, train.Options{Accumulate: 2, Clip: 1})
	source := formulaBatches("fail", 5, 2, 8, 0.3)
	bad := append(append(batches{}, source...), wrongClass())
	phase := train.Phase{Epochs: 2, Rates: train.SameRates(1e-3, 3)}
	round := func() {
		_, err := tr.Fit(context.Background(), phase, source, source)
		require.NoError(t, err)
		_, err = tr.Fit(context.Background(), phase, bad, nil)
		require.Error(t, err)
		_, err = tr.FindRate(context.Background(), source, &train.FindOptions{Iterations: 5})
		require.NoError(t, err)
		require.NoError(t, tr.Predict(context.Background(), source, false, func(train.Prediction) error { return nil }))
	}
	// A handle is counted until Go's collector has found it and a later call has
	// buried it.
	settled := func() int64 {
		for range 4 {
			runtime.GC()
			time.Sleep(300 * time.Millisecond)
			nn.Scope(func() { nn.Zeros(nn.CPU, nn.Float, 1) })
		}
		return shim.LiveHandles()
	}
	round()
	before := settled()
	for range 5 {
		round()
	}
	require.LessOrEqual(t, settled(), before+1, "one may be of the last call itself")
}

// Fit frees the optimizer's averages and the gradients when it returns, without
// the help of Go's collector.
func TestFitFreesAtOnce(t *testing.T) {
	in := nn.NewInit(nn.CPU, 1)
	wide := func(from, to, kernel int64) nn.Layer {
		return nn.NewConv2d(in, from, to, kernel, &nn.ConvOptions{Padding: kernel / 2})
	}
	model := &plain{nn.Sequential{wide(3, 512, 1), wide(512, 512, 3), wide(512, 2, 1)}} // 9 MiB of parameters
	tr := trainer(t, model, train.Options{})
	source := formulaBatches("fail", 1, 1, 8, 0.3)
	fit := func(times int) {
		for range times {
			_, err := tr.Fit(context.Background(), train.Phase{Epochs: 1, Rates: []float64{1e-6}}, source, nil)
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
	require.Less(t, grown, 60.0, "eight times the averages are 144 MiB")
}

// Memory stays flat through many steps: a step that leaked one of its maps would
// add 80 KiB, and 24 MiB in all.
func TestResidentMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	tr := trainer(t, newTiny(t, nn.Float), train.Options{Accumulate: 2, Clip: 1})
	source := formulaBatches("fail", 20, 1, 64, 0.3)
	fit := func(epochs int) {
		_, err := tr.Fit(context.Background(), train.Phase{Epochs: epochs, Rates: train.SameRates(1e-4, 3)}, source, source)
		require.NoError(t, err)
	}
	fit(3)
	before := residentMiB(t)
	fit(15)
	grown := residentMiB(t) - before
	t.Logf("%.1f MiB grown by %.1f in 300 batches and their validations", before, grown)
	require.Less(t, grown, 8.0)
}

// residentMiB returns the resident memory of the process.
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
