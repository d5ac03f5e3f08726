package train_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hcunet/hcunet/augment"
	pictures "github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// The test binary is also the program that several processes run, controlled by these
// environment variables.
const (
	ranksVariable  = "HCUNET_TEST_RANKS"        // file into which the first process writes its results
	lessonVariable = "HCUNET_TEST_RANKS_LESSON" // a lesson as JSON
)

// A lesson is how the processes learn.
type lesson struct {
	State         string // file of the state, to save or to load; "" for none
	Stop          int    // number of pauses after which to save the state and stop; 0 to load it
	DeviceData    int64  // see train.Parts
	OwnStatistics bool   // each process has its own, in batch norm
	Record        bool   // the gradients
	MicroBatches  int    // of a step; 0 means 2
}

// learnt has the results of a run.
type learnt struct {
	Weights       map[string][]float64
	Epochs        []metric.Epoch
	Probabilities []float32 // of the last image
	Pauses        int       // number of pauses of this part of the run
	DeviceData    int64     // bytes of the training images on the device
	Recorded      int       // batches
}

// ranksMain runs one of the processes of TestRanks.
func ranksMain(path string) error {
	cfg, _, err := dist.FromEnviron(os.Getenv)
	if err != nil {
		return err
	}
	group, err := dist.Open(cfg)
	if err != nil {
		return err
	}
	defer group.Close()
	var by lesson
	if err := json.Unmarshal([]byte(os.Getenv(lessonVariable)), &by); err != nil {
		return err
	}
	if by.Record {
		train.RecordAlways()
	}
	result, err := learn(group, by)
	if err == nil && group.First() {
		var b []byte
		if b, err = json.Marshal(result); err == nil {
			err = os.WriteFile(path, b, 0o666)
		}
	}
	if err != nil {
		group.Fail(err)
		return err
	}
	return group.Barrier()
}

// learn trains a small network with batch norms in float64, in one process (group nil) or
// in several: 11 images in batches of 4. With a state, it saves
// the state after some pauses and stops, or starts from the state.
func learn(group *dist.Group, by lesson) (*learnt, error) {
	r := rand.New(rand.NewPCG(7, 7))
	items := make([]feed.Item, 11)
	for i := range items {
		img := &pictures.Image{Width: 8, Height: 8, Channels: 3, Pix8: make([]uint8, 3*64)}
		mask := make([]uint8, 64)
		for j := range img.Pix8 {
			img.Pix8[j] = uint8(r.IntN(256))
		}
		for j := range mask {
			mask[j] = img.Pix8[j] / 128
		}
		items[i] = feed.Still(fmt.Sprint("film", i), img, mask)
	}
	images, err := feed.Read(context.Background(), items, nil)
	if err != nil {
		return nil, err
	}
	opt := feed.LoaderOptions{Batch: 4, Shuffle: true, Augment: new(augment.Default()), Seed: 3}
	if group != nil {
		opt.Share = feed.Share{Rank: group.Rank(), Of: group.Size()}
	}
	source, err := feed.NewLoader(images, opt)
	if err != nil {
		return nil, err
	}
	valid, err := feed.NewLoader(images, feed.LoaderOptions{Batch: 3})
	if err != nil {
		return nil, err
	}
	seed := uint64(1)
	if group != nil {
		seed += uint64(group.Rank()) // all processes must get the weights of the first one
	}
	in := nn.NewInit(nn.CPU, seed)
	in.DType = nn.Double
	net := nn.Sequential{
		nn.NewConv2d(in, 3, 4, 3, &nn.ConvOptions{Padding: 1, NoBias: true}), nn.NewBatchNorm2d(in, 4, nil), nn.Activation{},
		nn.NewConv2d(in, 4, 5, 3, &nn.ConvOptions{Padding: 1, NoBias: true}), nn.NewBatchNorm2d(in, 5, nil), nn.Activation{},
		nn.NewConv2d(in, 5, 2, 1, nil),
	}
	cfg := train.Default()
	cfg.MicroBatches, cfg.Clip, cfg.SyncBatchNorm = cmp.Or(by.MicroBatches, 2), 0.5, !by.OwnStatistics
	pauses := 0
	stopping := train.Hook{Pause: func(l *train.Learner) error {
		if pauses++; by.Stop == 0 || pauses < by.Stop {
			return nil
		}
		if pauses > by.Stop { // after Stop there is one more pause
			return train.Stop
		}
		if group == nil || group.First() {
			if err := l.SaveState(by.State); err != nil {
				return err
			}
		}
		return train.Stop
	}}
	var model train.Model = net
	if by.Record {
		model = staticNet{net}
	}
	l, err := train.New(model, rgb(), cfg, &train.Parts{
		Group: group, Metrics: []metric.Metric{metric.KernelDice(0.5, metric.Noise{})}, Hooks: []train.Hook{stopping},
		DeviceData: by.DeviceData,
	})
	if err != nil {
		return nil, err
	}
	if by.State != "" && by.Stop == 0 {
		if err := l.LoadState(by.State); err != nil {
			return nil, err
		}
	}
	out := &learnt{Weights: map[string][]float64{}}
	out.Epochs, err = l.Fit(context.Background(), source, valid,
		train.Phase{Name: "frozen", Epochs: 1, Rates: []float64{0.01}, Frozen: true},
		train.Phase{Name: "full", Epochs: 2, Rates: []float64{0.02}})
	if err != nil {
		return nil, err
	}
	for _, n := range nn.State(net) {
		if out.Weights[n.Name], err = nn.Slice[float64](n.Tensor); err != nil {
			return nil, err
		}
	}
	err = l.Predict(context.Background(), valid, train.FlipAverage, func(p *train.Prediction) error {
		out.Probabilities = p.Prob
		return nil
	})
	out.Pauses, out.DeviceData, out.Recorded = pauses, l.DeviceData().Bytes, l.Recordings().Steps
	return out, err
}

// staticNet is a network whose gradients may be recorded.
type staticNet struct{ nn.Sequential }

func (staticNet) Static() bool { return true }

// n processes with batches of b images learn the same as one process with batches of n*b
// images, up to the rounding of float64.
func TestRanks(t *testing.T) {
	golden.Processes(t, dist.Available(false))
	want, err := learn(nil, lesson{})
	require.NoError(t, err)
	for _, n := range []int{2, 3} {
		requireLearnt(t, want, learnByRanks(t, n, lesson{}), "%d processes", n)
	}
}

// Processes that repeat recorded gradients learn the same as processes that compute them, also
// where one process records and the other, whose share of a batch is smaller, does not.
func TestRanksRecorded(t *testing.T) {
	golden.Processes(t, dist.Available(false))
	for _, micro := range []int{1, 2} {
		want := learnByRanks(t, 2, lesson{OwnStatistics: true, MicroBatches: micro})
		require.Zero(t, want.Recorded)
		got := learnByRanks(t, 2, lesson{OwnStatistics: true, MicroBatches: micro, Record: true})
		require.Positive(t, got.Recorded)
		requireLearnt(t, want, got, "%d micro-batches", micro)
	}
}

// So do processes that make their parts of the batches on their devices.
func TestRanksDeviceData(t *testing.T) {
	golden.Processes(t, dist.Available(false))
	by := lesson{DeviceData: plenty}
	want, err := learn(nil, by)
	require.NoError(t, err)
	got := learnByRanks(t, 2, by)
	require.Positive(t, got.DeviceData)
	requireLearnt(t, want, got, "2 processes")
}

// A run can be continued with another number of processes.
func TestRanksChange(t *testing.T) {
	golden.Processes(t, dist.Available(false))
	want, err := learn(nil, lesson{})
	require.NoError(t, err)
	for _, c := range []struct{ begin, goOn, stop int }{
		{1, 2, 1}, // stops when the gradients of one batch are accumulated
		{1, 2, 3}, // stops after the last batch of an epoch, before its step
		{2, 1, 4}, // stops at the end of an epoch
	} {
		state := filepath.Join(t.TempDir(), "state.safetensors")
		learnByRanks(t, c.begin, lesson{State: state, Stop: c.stop})
		ended := learnByRanks(t, c.goOn, lesson{State: state})
		require.Less(t, ended.Pauses, want.Pauses, "it went on, and did not begin again")
		requireLearnt(t, want, ended, "%+v", c)
	}
}

// learnByRanks returns the results of learn in n processes.
func learnByRanks(t *testing.T, n int, by lesson) *learnt {
	t.Helper()
	if n == 1 {
		got, err := learn(nil, by)
		require.NoError(t, err)
		return got
	}
	path := filepath.Join(t.TempDir(), "learnt.json")
	t.Setenv(ranksVariable, path)
	text, err := json.Marshal(by)
	require.NoError(t, err)
	t.Setenv(lessonVariable, string(text))
	require.NoError(t, dist.Launch(t.Context(), n, []string{os.Args[0]}, nil))
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	var got learnt
	require.NoError(t, json.Unmarshal(text, &got))
	return &got
}

func requireLearnt(t *testing.T, want, got *learnt, format string, args ...any) {
	t.Helper()
	by := fmt.Sprintf(format, args...)
	const rounding = 1e-12 // sums of a few hundred numbers, over ten steps
	require.Len(t, got.Weights, len(want.Weights))
	for name, w := range want.Weights {
		require.InDeltaSlice(t, w, got.Weights[name], rounding, "%s, %s", name, by)
	}
	require.Len(t, got.Epochs, len(want.Epochs), by)
	for i, e := range want.Epochs {
		require.InDelta(t, e.TrainLoss, got.Epochs[i].TrainLoss, rounding, by)
		require.Len(t, got.Epochs[i].Values, len(e.Values))
		for j, v := range e.Values {
			require.InDelta(t, v.Value, got.Epochs[i].Values[j].Value, 1e-7, "%s, %s", v.Name, by) // computed from float32 probabilities
		}
	}
	require.InDeltaSlice(t, want.Probabilities, got.Probabilities, 1e-6, by)
}

func TestGroupRefuses(t *testing.T) {
	_, err := train.New(newTiny(t, nn.Float), rgb(), notebook(4, 1), &train.Parts{Group: &dist.Group{}})
	require.ErrorContains(t, err, `take "mean" for several`)
}
