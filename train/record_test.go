package train_test

import (
	"context"
	"sync"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// static is a tiny model whose steps may be recorded.
type static struct{ *tiny }

func (static) Static() bool { return true }

// On a GPU, a run whose steps are recorded ends with the weights and losses of one whose
// operations are asked for one by one: with batches of two sizes, in a frozen phase and a
// full one, with and without clipping.
func TestRecorded(t *testing.T) {
	if !testdevice.Device.CUDA() {
		t.Skip("only steps on a GPU are recorded; HCUNET_DEVICE=cuda:0 runs this test on one")
	}
	source := formulaBatches("laws", 11, 2, 8, 0.3)
	last := source[10]
	last.N, last.Indices, last.Images, last.Targets = 1, last.Indices[:1], last.Images[:3*8*8], last.Targets[:8*8]
	for _, clip := range []float64{0, 0.1} {
		var states [2]*checkpoint.File
		var losses [2][]float64
		for i := range 2 {
			model := newTiny(t, nn.Double)
			var m train.Model = model
			if i == 1 {
				m = static{model}
			}
			l := learner(t, m, mean(1, clip))
			epochs, err := l.Fit(context.Background(), source, nil,
				train.Phase{Epochs: 2, Rates: train.SameRates(1e-2, 3), Frozen: true}, train.Phase{Epochs: 2, Rates: train.SameRates(1e-2, 3)})
			require.NoError(t, err)
			// In each of the two phases, all but the first two of the 20 batches of two images.
			require.Equal(t, train.Recordings{Steps: i * 2 * 18}, l.Recordings())
			states[i] = state(t, model)
			for _, e := range epochs {
				losses[i] = append(losses[i], e.TrainLoss)
			}
		}
		for j, want := range states[0].Tensors {
			a, err := want.Float64s()
			require.NoError(t, err)
			b, err := states[1].Tensors[j].Float64s()
			require.NoError(t, err)
			golden.Close(t, want.Name, b, a, 1e-9) // the rounding of float64, in 44 steps that amplify it
		}
		golden.Close(t, "losses", losses[1], losses[0], 1e-9)
	}
}

// On a GPU, recorded steps read batches that are made on the device as they read others.
func TestRecordedDeviceData(t *testing.T) {
	if !testdevice.Device.CUDA() {
		t.Skip("only steps on a GPU are recorded; HCUNET_DEVICE=cuda:0 runs this test on one")
	}
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
	if !testdevice.Device.CUDA() {
		t.Skip("only predictions on a GPU are recorded; HCUNET_DEVICE=cuda:0 runs this test on one")
	}
	model := newTiny(t, nn.Double)
	plain, recorded := learner(t, model, mean(1, 0)), learner(t, static{model}, mean(1, 0))
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
		require.NoError(t, recorded.Recordings().Err)
		require.Positive(t, recorded.Recordings().Predictions)
		require.Zero(t, plain.Recordings())
		_, err := plain.Fit(context.Background(), source, nil, train.Phase{Epochs: 1, Rates: train.SameRates(1e-1, 3)})
		require.NoError(t, err)
	}
}
