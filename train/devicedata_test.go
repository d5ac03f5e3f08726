package train_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hcunet/hcunet/augment"
	pictures "github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// plenty is more memory than the images of these tests need.
const plenty = 1 << 20

// pixelFilms returns n random images of 10x12 pixels with three channels, and masks of two
// classes.
func pixelFilms(n, bits int) []feed.Item {
	r := rand.New(rand.NewPCG(21, uint64(bits)))
	items := make([]feed.Item, n)
	for i := range items {
		img := &pictures.Image{Width: 12, Height: 10, Channels: 3}
		mask := make([]uint8, 120)
		for j := range 3 * 120 {
			v := r.IntN(1 << bits)
			if bits == 16 {
				img.Pix16 = append(img.Pix16, uint16(v))
			} else {
				img.Pix8 = append(img.Pix8, uint8(v))
			}
			if j < 120 {
				mask[j] = uint8(v >> (bits - 1))
			}
		}
		items[i] = feed.Still(fmt.Sprint("film", i), img, mask)
	}
	return items
}

func loaderOf(t testing.TB, items []feed.Item, opt feed.LoaderOptions) *feed.Loader {
	t.Helper()
	images, err := feed.Read(context.Background(), items, nil)
	require.NoError(t, err)
	l, err := feed.NewLoader(images, opt)
	require.NoError(t, err)
	return l
}

// planned is a source whose Epoch fails: its pixels must be made on the device.
type planned struct{ *feed.Loader }

func (planned) Epoch(int, int) iter.Seq2[*feed.Batch, error] {
	return func(yield func(*feed.Batch, error) bool) { yield(nil, errors.New("Epoch was called")) }
}

// onDevice returns a learner whose training images may take that many bytes.
func onDevice(t testing.TB, m train.Model, cfg train.Config, deviceData int64, hooks ...train.Hook) *train.Learner {
	t.Helper()
	l, err := train.New(m, rgb(), cfg, &train.Parts{
		Input: train.Input{Mean: []float64{.4, .5, .6}, Std: []float64{.2, .3, .4}}, DeviceData: deviceData, Hooks: hooks,
	})
	require.NoError(t, err)
	return l
}

// weightsAfter trains a tiny network in two phases and returns its state and the losses.
func weightsAfter(t *testing.T, source feed.Source, cfg train.Config, deviceData int64) (weights, losses []float64, where train.DeviceData) {
	t.Helper()
	model := newTiny(t, nn.Float)
	l := onDevice(t, model, cfg, deviceData)
	epochs, err := l.Fit(context.Background(), source, nil,
		train.Phase{Name: "frozen", Epochs: 1, Rates: train.SameRates(1e-2, 3), Frozen: true}, train.Phase{Name: "full", Epochs: 2, Rates: train.SameRates(1e-2, 3)})
	require.NoError(t, err)
	for _, tensor := range state(t, model).Tensors {
		v, err := tensor.Float64s()
		require.NoError(t, err)
		weights = append(weights, v...)
	}
	for _, e := range epochs {
		losses = append(losses, e.TrainLoss)
	}
	return weights, losses, l.DeviceData()
}

// Training on batches that are made on the device ends as training on those of the CPU: with
// the same bits if images are copied, flipped and cropped, and close to it otherwise.
func TestDeviceData(t *testing.T) {
	sgd := mean(1, 0)
	sgd.Optimizer = nn.DefaultSGD()
	for name, c := range map[string]struct {
		bits      int
		bytes     int64 // of 11 images of 10x12 with three channels, and masks
		opt       feed.LoaderOptions
		cfg       train.Config
		tolerance float64
	}{
		"plain":      {8, 11 * 120 * 4, feed.LoaderOptions{Batch: 3}, mean(1, 0), 0},
		"crop, flip": {8, 11 * 120 * 4, feed.LoaderOptions{Batch: 3, Size: 10, Shuffle: true, Augment: &augment.Config{PFlip: 0.5}}, mean(2, 0.1), 0},
		"16 bits":    {16, 11 * 120 * 7, feed.LoaderOptions{Batch: 4, Shuffle: true, Augment: &augment.Config{PFlip: 0.5}, Last: feed.DropLast}, notebook(2, 1), 0},
		// The pixels differ by up to a few times 1e-7, see TestDeviceBatches. The input divides
		// them by 0.2, and nine steps of SGD add this up. Adam would divide a gradient of only
		// rounding by its own size.
		"transforms": {8, 11 * 120 * 4, feed.LoaderOptions{Batch: 4, Shuffle: true, Augment: new(augment.Default()), Seed: 4}, sgd, 1e-5},
	} {
		t.Run(name, func(t *testing.T) {
			if c.tolerance == 0 {
				testdevice.Repeatable(t)
			}
			l := loaderOf(t, pixelFilms(11, c.bits), c.opt)
			want, wantLosses, where := weightsAfter(t, l, c.cfg, 0)
			require.Equal(t, train.DeviceData{Reason: "Parts.DeviceData is 0"}, where)
			got, losses, where := weightsAfter(t, planned{l}, c.cfg, plenty)
			require.Equal(t, train.DeviceData{Bytes: c.bytes}, where)
			if c.tolerance == 0 {
				require.Equal(t, want, got)
				require.Equal(t, wantLosses, losses)
				return
			}
			golden.Close(t, "weights", got, want, c.tolerance)
			golden.Close(t, "losses", losses, wantLosses, c.tolerance)
			require.NotEqual(t, want, got, "they are computed in another way")
		})
	}
}

// A set that does not fit, or whose images cannot be planned, is trained on in the usual
// way, and the learner says why.
func TestDeviceDataElsewhere(t *testing.T) {
	testdevice.Repeatable(t)
	l := loaderOf(t, pixelFilms(5, 8), feed.LoaderOptions{Batch: 2, Augment: new(augment.Default())})
	want, _, _ := weightsAfter(t, l, mean(1, 0), 0)
	type source struct{ feed.Source } // no Planner
	for reason, c := range map[string]struct {
		source feed.Source
		limit  int64
	}{
		"the images and masks have 2400 bytes, and at most 2399 are allowed": {l, 2399},
		"the source, a train_test.source, is no feed.Planner":                {source{l}, plenty},
	} {
		got, _, where := weightsAfter(t, c.source, mean(1, 0), c.limit)
		require.Equal(t, train.DeviceData{Reason: reason}, where)
		require.Equal(t, want, got, reason)
	}
	_, _, where := weightsAfter(t, planned{l}, mean(1, 0), 2400)
	require.Equal(t, train.DeviceData{Bytes: 2400}, where)

	unmasked := pixelFilms(2, 8)
	for i := range unmasked {
		img, _, err := unmasked[i].Load()
		require.NoError(t, err)
		unmasked[i] = feed.Still(unmasked[i].Name, img, nil)
	}
	tr := onDevice(t, newTiny(t, nn.Float), mean(1, 0), plenty)
	require.Zero(t, tr.DeviceData())
	_, err := tr.Fit(context.Background(), loaderOf(t, unmasked, feed.LoaderOptions{}), nil, train.Phase{Epochs: 1, Rates: train.SameRates(1e-3, 3)})
	require.ErrorContains(t, err, "has 0 target values")
	require.Equal(t, "the images have no masks", tr.DeviceData().Reason)

	_, err = train.New(newTiny(t, nn.Float), rgb(), mean(1, 0), &train.Parts{DeviceData: -1})
	require.ErrorContains(t, err, "may take -1 bytes on the device")
}

// A run whose batches are made on the device is stopped after each batch in turn, and goes on
// to the same bits. What was done before is not copied again.
func TestDeviceDataResumes(t *testing.T) {
	testdevice.Repeatable(t)
	path := filepath.Join(t.TempDir(), "state.safetensors")
	source := planned{loaderOf(t, pixelFilms(7, 8), feed.LoaderOptions{Batch: 3, Shuffle: true, Augment: new(augment.Default()), Seed: 4})}
	run := func(load bool, stop int) (weights []byte, pauses int, l *train.Learner) {
		model := newTiny(t, nn.Float)
		l = onDevice(t, model, mean(2, 0.5), plenty, train.Hook{Pause: func(l *train.Learner) error {
			if pauses++; pauses != stop {
				return nil
			}
			return errors.Join(l.SaveState(path), train.Stop)
		}})
		if load {
			require.NoError(t, l.LoadState(path))
		}
		_, err := l.Fit(context.Background(), source, nil, train.Phase{Epochs: 2, Rates: train.SameRates(1e-2, 3)})
		require.NoError(t, err)
		var b bytes.Buffer
		for _, tensor := range state(t, model).Tensors {
			b.Write(tensor.Data)
		}
		return b.Bytes(), pauses, l
	}
	want, pauses, _ := run(false, 0)
	require.Equal(t, 2*(3+1), pauses)
	for stop := 1; stop <= pauses; stop++ {
		run(false, stop)
		got, _, l := run(true, 0)
		require.True(t, bytes.Equal(want, got), "stopped at pause %d", stop)
		if stop < pauses {
			require.Positive(t, l.DeviceData().Bytes)
		} else {
			require.Zero(t, l.DeviceData(), "nothing was left to do")
		}
	}
}

// FindRate makes its batches on the device too.
func TestDeviceDataFindRate(t *testing.T) {
	testdevice.Repeatable(t)
	l := loaderOf(t, pixelFilms(7, 8), feed.LoaderOptions{Batch: 3, Shuffle: true, Augment: &augment.Config{PFlip: 0.5}})
	find := func(source feed.Source, limit int64) []train.RatePoint {
		tr := onDevice(t, newTiny(t, nn.Float), mean(2, 0), limit)
		points, err := tr.FindRate(context.Background(), source, &train.FindOptions{Iterations: 5})
		require.NoError(t, err)
		require.Equal(t, limit > 0, tr.DeviceData().Bytes > 0)
		return points
	}
	require.Equal(t, find(l, 0), find(planned{l}, plenty))
}

// rebatched is a source that changes its planned batches.
type rebatched struct {
	*feed.Loader
	change func(*feed.Batch)
}

func (s rebatched) Plans(epoch, from int) iter.Seq2[*feed.Batch, error] {
	return func(yield func(*feed.Batch, error) bool) {
		for b, err := range s.Loader.Plans(epoch, from) {
			if s.change(b); !yield(b, err) {
				return
			}
		}
	}
}

// misplanned yields planned batches where pixels are wanted.
type misplanned struct{ *feed.Loader }

func (s misplanned) Epoch(epoch, from int) iter.Seq2[*feed.Batch, error] {
	return s.Loader.Plans(epoch, from)
}

// Epoch yields planned batches, which only a device with the images could make.
func (s rebatched) Epoch(epoch, from int) iter.Seq2[*feed.Batch, error] {
	return s.Plans(epoch, from)
}

var notANumber = loss.Func{Name: "NaN", F: func(scores, _ torch.Tensor) torch.Tensor {
	return nn.MulScalar(nn.Mean(scores), math.NaN())
}}

// Errors name images, also of batches that are made on the device.
func TestDeviceDataErrors(t *testing.T) {
	phase := train.Phase{Name: "full", Epochs: 1, Rates: train.SameRates(1e-3, 3)}
	fit := func(source feed.Source, limit int64) error {
		_, err := onDevice(t, newTiny(t, nn.Float), mean(1, 0), limit).Fit(context.Background(), source, nil, phase)
		return err
	}
	items := pixelFilms(4, 8)
	img, mask, err := items[2].Load()
	require.NoError(t, err)
	mask[17] = 5
	require.ErrorContains(t, fit(loaderOf(t, items, feed.LoaderOptions{}), plenty), "a target of class 5 at pixel 17 of film2; the task has classes 0 to 1")
	mask[17] = 0

	// A file that is gone is an error before the first batch.
	gone := false
	items[3].Load = func() (*pictures.Image, []uint8, error) {
		if gone {
			return nil, nil, os.ErrNotExist
		}
		return img, mask, nil
	}
	images, err := feed.Read(context.Background(), items, &feed.ReadOptions{Memory: 1})
	require.NoError(t, err)
	gone = true
	l, err := feed.NewLoader(images, feed.LoaderOptions{Batch: 2})
	require.NoError(t, err)
	err = fit(l, plenty)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "film3")

	l = loaderOf(t, pixelFilms(4, 8), feed.LoaderOptions{Batch: 2})
	nothing := func(*feed.Batch) {}
	require.ErrorContains(t, fit(rebatched{l, nothing}, 0), "the images are not on the device")
	for want, change := range map[string]func(*feed.Batch){
		"image 4; the set has images 0 to 3":                      func(b *feed.Batch) { b.Indices = []int{0, 4} },
		"a plan with unknown padding 3":                           func(b *feed.Batch) { b.Plans[0].Padding = 3 },
		"plan for an image of 10x13; those of the set are 10x12":  func(b *feed.Batch) { b.Plans[1].SrcW = 13 },
		"images of 2 channels; the task has 3":                    func(b *feed.Batch) { b.C = 2 },
		"planned batch of images of 10x13 has a plan for one of ": func(b *feed.Batch) { b.W = 13 },
	} {
		require.ErrorContains(t, fit(rebatched{l, change}, plenty), want)
	}

	// A loss that is not a number names the images of its batch.
	tr, err := train.New(newTiny(t, nn.Float), rgb(), mean(1, 0), &train.Parts{Loss: notANumber, DeviceData: plenty})
	require.NoError(t, err)
	_, err = tr.Fit(context.Background(), planned{l}, nil, phase)
	require.ErrorContains(t, err, "images film0, film1: the loss is NaN")

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = onDevice(t, newTiny(t, nn.Float), mean(1, 0), plenty).Fit(ctx, planned{l}, nil, phase)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "cancelled in copying the training images")

	// A hook stops the copying.
	trained := false
	_, err = onDevice(t, newTiny(t, nn.Float), mean(1, 0), plenty, train.Hook{
		Copying:  func() error { return train.Stop },
		BatchEnd: func(train.BatchInfo) error { trained = true; return nil },
	}).Fit(context.Background(), planned{l}, nil, phase)
	require.NoError(t, err)
	require.False(t, trained)
	ended := 0
	tr = onDevice(t, newTiny(t, nn.Float), mean(1, 0), plenty, train.Hook{Copying: func() error { ended++; return train.EndPhase }})
	epochs, err := tr.Fit(context.Background(), planned{l}, nil, phase)
	require.NoError(t, err)
	require.Len(t, epochs, 1, "EndPhase has no effect")
	require.Equal(t, 1, ended)
	_, err = tr.FindRate(context.Background(), planned{l}, &train.FindOptions{Start: train.SameRates(1e-5, 3), End: train.SameRates(1e-2, 3), Iterations: 2})
	require.NoError(t, err)
	require.Equal(t, 1, ended, "only Fit calls hooks")

	// Only training batches may be planned.
	err = onDevice(t, newTiny(t, nn.Float), mean(1, 0), 0).Predict(context.Background(), misplanned{l}, train.NoFlip, nil)
	require.ErrorContains(t, err, "only training batches are made on the device")
}

// Copying the images and making batches of them run on the meta device: no operand is left
// on the CPU.
func TestDeviceDataOnMeta(t *testing.T) {
	strong := augment.Config{PFlip: 0.5, PAffine: 0.5, PLighting: 0.5, MaxWarp: 0.2, MaxRotate: 10, MaxZoom: 3, MaxBrightness: 0.2, MaxContrast: 0.2}
	for _, bits := range []int{8, 16} {
		for _, size := range []int{0, 4, 10} { // 4 averages some images
			steps := 0
			l := onDevice(t, layersOnMeta(2, nn.Meta), train.Default(), plenty, train.Hook{StepEnd: func(train.StepInfo) error { steps++; return nil }})
			source := planned{loaderOf(t, pixelFilms(9, bits), feed.LoaderOptions{Batch: 3, Size: size, Augment: &strong})}
			_, err := l.Fit(context.Background(), source, nil, train.Phase{Epochs: 2, Rates: train.SameRates(1e-3, l.LayerGroups())})
			require.NoError(t, err)
			require.Equal(t, 6, steps)
		}
	}
}
