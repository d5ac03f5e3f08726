package train_test

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// static is a tiny model whose steps may be recorded.
type static struct{ *tiny }

func (static) Static() bool { return true }

// skipping is an optimizer on the CPU that can leave out a step, as those on CUDA can.
type skipping struct{ nn.Optimizer }

func (skipping) CanSkip() bool { return true }

func (s skipping) StepUnless(skip torch.Tensor, hyper []nn.Hyper) error {
	if v, err := nn.Item(skip); err != nil || v == 1 {
		return err
	}
	return s.Step(hyper)
}

// recorder returns a learner whose steps and predictions are recorded, on the CPU too.
func recorder(t *testing.T, m *tiny, cfg train.Config, hooks ...train.Hook) *train.Learner {
	t.Helper()
	train.Recording(t)
	parts := &train.Parts{Hooks: hooks}
	if !testdevice.Device.CUDA() {
		parts.Optimizer = func(groups [][]nn.Named) (nn.Optimizer, error) {
			o, err := cfg.Optimizer.New(groups)
			return skipping{o}, err
		}
	}
	l, err := train.New(static{m}, rgb(), cfg, parts)
	require.NoError(t, err)
	return l
}

// uneven returns n batches of two images but for the last one, which has one.
func uneven(n int) batches {
	source := formulaBatches("laws", n, 2, 8, 0.3)
	last := source[n-1]
	last.N, last.Indices, last.Images, last.Targets = 1, last.Indices[:1], last.Images[:3*8*8], last.Targets[:8*8]
	return source
}

// A run whose steps are recorded ends with the weights and the losses of one whose
// operations are asked for one by one: with batches of two sizes, in a frozen phase and a
// full one, with and without clipping and gathered gradients.
func TestRecorded(t *testing.T) {
	source := uneven(11)
	for name, cfg := range map[string]train.Config{
		"steps": mean(1, 0), "clipped steps": mean(1, 0.1), "gathered": mean(3, 0.1), "notebook": notebook(3, 0.1), "notebook's steps": notebook(1, 0),
	} {
		t.Run(name, func(t *testing.T) {
			var models [2]*tiny
			var infos [2][]train.BatchInfo
			for i := range 2 {
				model := newTiny(t, nn.Double)
				note := train.Hook{BatchEnd: func(b train.BatchInfo) error { infos[i] = append(infos[i], b); return nil }}
				l := learner(t, model, cfg, note)
				if i == 1 {
					l = recorder(t, model, cfg, note)
				}
				_, err := l.Fit(context.Background(), source, nil,
					train.Phase{Epochs: 2, Rates: train.SameRates(1e-2, 3), Frozen: true}, train.Phase{Epochs: 2, Rates: train.SameRates(1e-2, 3)})
				require.NoError(t, err)
				// In each of the two phases, all but the first two of the 20 batches of two images.
				require.Equal(t, train.Recordings{Steps: i * 2 * 18}, l.Recordings())
				models[i] = model
			}
			closeTensors(t, nn.State(models[1]), nn.State(models[0]))
			for j, want := range infos[0] {
				got := infos[1][j]
				require.InDelta(t, want.Loss, got.Loss, 1e-9, "batch %d", j)
				require.Equal(t, math.IsNaN(want.Norm), math.IsNaN(got.Norm), "batch %d", j)
				if !math.IsNaN(want.Norm) {
					require.InDelta(t, want.Norm, got.Norm, 1e-9*max(1, want.Norm), "batch %d", j)
				}
				want.Loss, want.Norm, got.Loss, got.Norm = 0, 0, 0, 0
				require.Equal(t, want, got)
			}
		})
	}
}

// closeTensors compares tensors up to the rounding of float64 and some dozen steps that amplify it.
func closeTensors(t *testing.T, got, want []nn.Named) {
	t.Helper()
	for i, w := range want {
		a, err := nn.Slice[float64](w.Tensor)
		require.NoError(t, err)
		b, err := nn.Slice[float64](got[i].Tensor)
		require.NoError(t, err)
		golden.Close(t, w.Name, b, a, 1e-9)
	}
}

// The device is given a batch and its step before the loss of the batch before it is read,
// but not at the end of an epoch, not before a batch of another size, and not where a hook
// waits for a pause.
func TestAhead(t *testing.T) {
	moments := func(hooks ...train.Hook) []string {
		var got []string
		d := diary(&got)
		d.EvalStart, d.EvalEnd, d.Pause, d.StepEnd, d.PhaseStart, d.PhaseEnd, d.EpochStart = nil, nil, nil, nil, nil, nil, nil
		for i, h := range hooks {
			if h.Pause != nil {
				hooks[i].Pause = func(*train.Learner) error { got = append(got, "pause"); return nil }
			}
		}
		l := recorder(t, newTiny(t, nn.Float), mean(1, 0), append(hooks, d)...)
		_, err := l.Fit(context.Background(), uneven(7), nil, train.Phase{Name: "p", Epochs: 1, Rates: train.SameRates(1e-3, 3)})
		require.NoError(t, err)
		return got
	}
	pause := func(*train.Learner) error { return nil }
	begin := []string{"step 0", "batch 0", "step 1", "batch 1"} // not recorded
	require.Equal(t, append(slices.Clone(begin), "step 2", "step 3", "batch 2", "step 4", "batch 3", "step 5", "batch 4", "batch 5", "step 6", "batch 6", "row p 0"),
		moments())
	require.Equal(t, []string{"step 0", "batch 0", "pause", "step 1", "batch 1", "pause", "step 2", "batch 2", "pause", "step 3", "batch 3", "pause",
		"step 4", "batch 4", "pause", "step 5", "batch 5", "pause", "step 6", "batch 6", "pause", "row p 0", "pause"}, moments(train.Hook{Pause: pause}))
	asked := 0
	due := train.Hook{Pause: pause, PauseDue: func() bool { asked++; return asked == 3 }} // first asked after batch 2
	require.Equal(t, []string{"step 0", "batch 0", "pause", "step 1", "batch 1", "pause", "step 2", "step 3", "batch 2", "step 4", "batch 3", "batch 4", "pause",
		"step 5", "batch 5", "step 6", "batch 6", "pause", "row p 0", "pause"}, moments(due))
}

// A run that a hook, a context or a broken batch ends while a batch is open has ended all
// batches before, in order.
func TestEndAhead(t *testing.T) {
	phase := train.Phase{Epochs: 1, Rates: train.SameRates(1e-2, 3), Schedule: train.Constant{}}
	// after returns the model of a run over the first n batches.
	after := func(n int) *tiny {
		model := newTiny(t, nn.Double)
		_, err := learner(t, model, mean(1, 0)).Fit(context.Background(), formulaBatches("laws", 9, 2, 8, 0.3)[:n], nil, phase)
		require.NoError(t, err)
		return model
	}
	run := func(ctx context.Context, source feed.Source, hooks ...train.Hook) (ended []int, model *tiny, err error) {
		model = newTiny(t, nn.Double)
		note := train.Hook{BatchEnd: func(b train.BatchInfo) error { ended = append(ended, b.Iteration); return nil }}
		_, err = recorder(t, model, mean(1, 0), append(hooks, note)...).Fit(ctx, source, nil, phase)
		return ended, model, err
	}

	t.Run("stop", func(t *testing.T) {
		stop := train.Hook{BatchEnd: func(b train.BatchInfo) error { return at(b.Iteration == 4, train.Stop) }}
		ended, model, err := run(context.Background(), formulaBatches("laws", 9, 2, 8, 0.3), stop)
		require.NoError(t, err)
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, ended, "the device had batch 5 when the loss of batch 4 was read")
		closeTensors(t, nn.State(model), nn.State(after(6)))
	})
	t.Run("end the phase", func(t *testing.T) {
		stop := train.Hook{StepEnd: func(s train.StepInfo) error { return at(s.Step == 5, train.EndPhase) }}
		ended, model, err := run(context.Background(), formulaBatches("laws", 9, 2, 8, 0.3), stop)
		require.NoError(t, err)
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, ended)
		closeTensors(t, nn.State(model), nn.State(after(6)))
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		stop := train.Hook{StepEnd: func(s train.StepInfo) error {
			if s.Step == 4 {
				cancel()
			}
			return nil
		}}
		ended, model, err := run(ctx, formulaBatches("laws", 9, 2, 8, 0.3), stop)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "after 5 batches")
		require.Equal(t, []int{0, 1, 2, 3, 4}, ended)
		closeTensors(t, nn.State(model), nn.State(after(5)))
	})
	t.Run("the source fails", func(t *testing.T) {
		source := formulaBatches("laws", 9, 2, 8, 0.3)
		source[5].Targets = source[5].Targets[:1]
		ended, model, err := run(context.Background(), source)
		require.ErrorContains(t, err, "epoch 0: batch 5: ")
		require.Equal(t, []int{0, 1, 2, 3, 4}, ended)
		closeTensors(t, nn.State(model), nn.State(after(5)))
	})
	t.Run("a loss is not a number", func(t *testing.T) {
		source := formulaBatches("laws", 9, 2, 8, 0.3)
		source[5].Images[7] = float32(math.NaN())
		ended, model, err := run(context.Background(), source)
		require.EqualError(t, err, "train: epoch 0: batch 5: step 5, learning rate 0.01, images image 10, image 11: the loss is NaN; lower the learning rate, or look at the images with data.Check")
		require.Equal(t, []int{0, 1, 2, 3, 4}, ended)
		// The step of batch 6, which the device had by then, was left out. Running statistics are
		// not kept from a bad batch.
		closeTensors(t, nn.Parameters(model), nn.Parameters(after(5)))
	})
}

// A state that is saved while steps are recorded is that of a moment between two batches: a
// run goes on from it.
func TestResumeRecorded(t *testing.T) {
	source := formulaBatches("laws", 9, 2, 8, 0.3)
	phase := train.Phase{Epochs: 2, Rates: train.SameRates(1e-2, 3)}
	path := filepath.Join(t.TempDir(), "state.safetensors")
	batch := 0
	save := train.Hook{
		BatchEnd: func(b train.BatchInfo) error { batch = b.Iteration; return nil },
		PauseDue: func() bool { return batch == 13 },
		Pause: func(l *train.Learner) error {
			if batch != 15 { // the device was given batch 14 before batch 13 ended, and batch 15 before PauseDue was asked
				return nil
			}
			batch = 0
			return l.SaveState(path)
		},
	}
	whole := newTiny(t, nn.Double)
	_, err := recorder(t, whole, mean(1, 0.1), save).Fit(context.Background(), source, nil, phase)
	require.NoError(t, err)
	resumed := newTiny(t, nn.Double)
	first := -1
	l := recorder(t, resumed, mean(1, 0.1), train.Hook{BatchEnd: func(b train.BatchInfo) error {
		if first < 0 {
			first = b.Iteration
		}
		return nil
	}})
	require.NoError(t, l.LoadState(path))
	_, err = l.Fit(context.Background(), source, nil, phase)
	require.NoError(t, err)
	require.Equal(t, 16, first)
	closeTensors(t, nn.State(resumed), nn.State(whole))
}

// Recorded steps read batches that are made on the device as they read others.
func TestRecordedDeviceData(t *testing.T) {
	train.Recording(t)
	l := loaderOf(t, pixelFilms(11, 8), feed.LoaderOptions{Batch: 2, Shuffle: true, Augment: &augment.Config{PFlip: 0.5}, Last: feed.DropLast})
	var losses [2][]float64
	for i, deviceData := range []int64{0, plenty} {
		tr := onDevice(t, static{newTiny(t, nn.Double)}, mean(1, 0.1), deviceData)
		epochs, err := tr.Fit(context.Background(), l, nil, train.Phase{Epochs: 4, Rates: train.SameRates(1e-2, 3)})
		require.NoError(t, err)
		require.Equal(t, train.Recordings{Steps: 4*5 - 2}, tr.Recordings())
		require.Equal(t, deviceData > 0, tr.DeviceData().Bytes > 0)
		for _, e := range epochs {
			losses[i] = append(losses[i], e.TrainLoss)
		}
	}
	golden.Close(t, "losses", losses[1], losses[0], 1e-9)
}

// Recorded predictions are those of a learner that asks for one operation at a time, also
// if several goroutines predict at once, inside of a scope, and after more training.
func TestRecordedPredictions(t *testing.T) {
	model := newTiny(t, nn.Double)
	plain, recorded := learner(t, model, mean(1, 0)), recorder(t, model, mean(1, 0))
	source := formulaBatches("laws", 7, 2, 8, 0.3)
	predict := func(l *train.Learner) (all []float32) {
		nn.Scope(func() {
			require.NoError(t, l.Predict(context.Background(), source, train.FlipAverage, func(p *train.Prediction) error {
				all = append(all, p.Prob...)
				return nil
			}))
		})
		return all
	}
	for range 2 {
		want := predict(plain)
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				for range 3 {
					golden.Close(t, "probabilities", predict(recorded), want, 1e-6) // float32 results of float64 sums
				}
			})
		}
		wait.Wait()
		requireLate(t, recorded, source)
		require.NoError(t, recorded.Recordings().Err)
		require.Positive(t, recorded.Recordings().Predictions)
		require.Zero(t, plain.Recordings())
		_, err := plain.Fit(context.Background(), source, nil, train.Phase{Epochs: 1, Rates: train.SameRates(1e-1, 3)})
		require.NoError(t, err)
	}
}

// requireLate requires that a prediction that an error or a context ends while the result of a
// batch is late has passed on all images before, in order.
func requireLate(t *testing.T, l *train.Learner, source batches) {
	t.Helper()
	broken := errors.New("the disk is full")
	ctx, cancel := context.WithCancel(context.Background())
	for _, c := range []struct {
		ctx    context.Context
		source func() batches
		each   func(n int) error
		err    string
		images int
	}{
		{context.Background(), func() batches { return source }, func(n int) error { return at(n == 5, broken) }, "the disk is full", 5},
		{ctx, func() batches { return source }, func(n int) error {
			if n == 5 {
				cancel()
			}
			return nil
		}, "train: cancelled in prediction, after 8 images", 8}, // the context is done during image 5, when the device has the batch of images 6 and 7
		{context.Background(), func() batches {
			b := slices.Clone(source)
			b[4] = &feed.Batch{N: 2, C: 3, H: 8, W: 8}
			return b
		}, func(int) error { return nil }, "train: predicting batch 4, images from 8 on: ", 8},
	} {
		var seen []int
		err := l.Predict(c.ctx, c.source(), train.FlipAverage, func(p *train.Prediction) error {
			seen = append(seen, p.Index)
			return c.each(len(seen))
		})
		require.ErrorContains(t, err, c.err)
		require.Len(t, seen, c.images)
		for i, index := range seen {
			require.Equal(t, i, index)
		}
	}
}
