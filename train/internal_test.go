package train

import (
	"math"
	"testing"
	"time"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// The scale follows the rules of torch.cuda.amp.GradScaler() of PyTorch 1.13: it is 65536 at
// first, is halved after each overflow, and is doubled after 2000 steps in a row without
// one.
func TestScaler(t *testing.T) {
	s := newScaler(Float16)
	require.Equal(t, 65536.0, s.scale())
	s.update(false)
	s.update(false)
	require.Equal(t, 16384.0, s.scale())
	for range 1999 {
		s.update(true)
	}
	require.Equal(t, 16384.0, s.scale())
	s.update(true)
	require.Equal(t, 32768.0, s.scale())
	for range 1999 {
		s.update(true)
	}
	s.update(false)
	for range 1999 {
		s.update(true)
	}
	require.Equal(t, 16384.0, s.scale(), "an overflow resets the count")
	require.Equal(t, 3, s.Skipped)

	for _, p := range []Precision{Full, BFloat16} {
		s := newScaler(p)
		require.False(t, s.on())
		require.Equal(t, 1.0, s.scale())
	}
}

// scaledStepper returns a stepper with a scaler and two parameters whose gradients are
// filled with gradient, the parameters, and the number of steps taken.
func scaledStepper(t *testing.T, gradient float64, clip float64) (*stepper, []nn.Named, *int) {
	t.Helper()
	var params []nn.Named
	for _, name := range []string{"a", "b"} {
		p := nn.Full(nn.CPU, nn.Float, 1, 2)
		nn.SetRequiresGrad(p, true)
		nn.SetGrad(p, nn.Full(nn.CPU, nn.Float, gradient, 2))
		params = append(params, nn.Named{Name: name, Tensor: p})
	}
	steps := 0
	scaler := newScaler(Float16)
	return &stepper{params: params, clip: clip, scaler: &scaler, step: func(float64) error { steps++; return nil }}, params, &steps
}

// With both kinds of accumulation, a step whose gradients are not finite is skipped: the
// parameters do not change, the gradients are set to zero, and the scale is halved.
func TestInfiniteGradientsAreSkipped(t *testing.T) {
	for _, bad := range []float64{math.Inf(1), math.Inf(-1), math.NaN()} {
		for _, acc := range []accumulator{meanAccumulator{1}, notebookAccumulator{2}} {
			for _, clip := range []float64{0, 1} {
				s, params, steps := scaledStepper(t, 65536, clip)
				g, _ := nn.Grad(params[1].Tensor)
				nn.CopyInto(nn.Narrow(g, 0, 1, 1), nn.Full(nn.CPU, nn.Float, bad, 1))
				got := &gathered{}
				acc.beginBatch(got, 4, true)
				require.NoError(t, acc.endBatch(got, s))
				require.Zero(t, *steps)
				require.Equal(t, scaler{Scale: 32768, Skipped: 1}, *s.scaler)
				norm, err := nn.GradNorm(params)
				require.NoError(t, err)
				require.Zero(t, norm)
				require.Zero(t, got.Batches)
			}
		}
	}
}

// Before a step the scale is divided out of the gradient, and then the gradient is clipped.
// Four numbers of 3 have the norm 6.
func TestScaleIsTakenOut(t *testing.T) {
	for _, c := range []struct{ clip, want float64 }{{0, 6}, {100, 6}, {1, 1}} {
		for _, acc := range []accumulator{meanAccumulator{1}, notebookAccumulator{2}} {
			s, params, steps := scaledStepper(t, 3*65536, c.clip)
			s.step = func(divisor float64) error {
				*steps++
				require.Equal(t, 1.0, divisor)
				norm, err := nn.GradNorm(params)
				require.NoError(t, err)
				require.InEpsilon(t, c.want, norm, 2e-6) // the factor is limit/(norm+1e-6); float32
				return nil
			}
			got := &gathered{}
			acc.beginBatch(got, 1, true)
			require.NoError(t, acc.endBatch(got, s))
			require.Equal(t, 1, *steps)
			if c.clip > 0 {
				require.InEpsilon(t, 6, s.norm, 1e-6)
			}
		}
	}
}

// Without a scale, a gradient whose norm is not finite is an error, and no step is taken.
func TestBadGradientStops(t *testing.T) {
	for _, acc := range []accumulator{meanAccumulator{1}, notebookAccumulator{2}} {
		s, _, steps := scaledStepper(t, math.Inf(1), 1)
		*s.scaler = newScaler(Full)
		got := &gathered{}
		acc.beginBatch(got, 1, true)
		var bad *badNumber
		require.ErrorAs(t, acc.endBatch(got, s), &bad)
		require.Zero(t, *steps)
	}
}

// If libtorch's error is about memory, the error says what to do.
func TestOutOfMemory(t *testing.T) {
	cuda := &nn.Error{Op: "conv2d", Msg: "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.78 GiB total capacity)"}
	err := outOfMemory(cuda, &feed.Batch{N: 16, H: 512, W: 256})
	require.ErrorContains(t, err, "no memory for a batch of 16 images of 512x256; try batches of 8 (feed.LoaderOptions.Batch) and twice as many a step (Config.MicroBatches): ")
	require.ErrorIs(t, err, cuda)
	require.ErrorContains(t, outOfMemory(cuda, &feed.Batch{N: 1, H: 512, W: 256}), "no memory for one image of 512x256; take smaller images")
	other := &nn.Error{Op: "conv2d", Msg: "expected 4D input"}
	require.Equal(t, other, outOfMemory(other, &feed.Batch{N: 16}))
	require.NoError(t, outOfMemory(nil, &feed.Batch{}))

	// A real one: a tensor of 2^60 numbers.
	real := nn.Try(func() { nn.Scope(func() { nn.Zeros(nn.CPU, nn.Float, 1<<30, 1<<28) }) })
	require.ErrorContains(t, outOfMemory(real, &feed.Batch{N: 4, H: 8, W: 8}), "try batches of 2")
}

// Saving takes under 2 % of the time once the second state is due, even if the first
// one took much longer than expected.
func TestSaverPeriod(t *testing.T) {
	for _, took := range []time.Duration{time.Millisecond, 2 * time.Second, 10 * time.Second} {
		began := time.Now()
		s := Saver{began: began}
		now := began.Add(firstSave + took)
		for range 5 {
			s.saved(now, took)
			require.GreaterOrEqual(t, s.next.Sub(now), saveShare*took)
			require.LessOrEqual(t, saveShare*(s.spent+took), s.next.Sub(began))
			now = s.next.Add(took)
		}
		s.Every = time.Second
		s.saved(now, took)
		require.Equal(t, now.Add(time.Second), s.next)
	}
}
