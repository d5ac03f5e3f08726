package train_test

import (
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
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// The test binary is also the program of the processes: this variable names the
// file for what the first of them has learnt.
const ranksVariable = "HCUNET_TEST_RANKS"

// learnt is what a run leaves.
type learnt struct {
	Weights       map[string][]float64
	Epochs        []metric.Epoch
	Probabilities []float32 // of the last image
}

// ranksMain is a process of TestRanks.
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
	result, err := learn(group)
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

// learn trains a small network with batch norms in float64, in one process or in
// several: 11 images in batches of 4, two batches a step.
func learn(group *dist.Group) (*learnt, error) {
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
		seed += uint64(group.Rank()) // the first process's weights count
	}
	in := nn.NewInit(nn.CPU, seed)
	in.DType = nn.Double
	net := nn.Sequential{
		nn.NewConv2d(in, 3, 4, 3, &nn.ConvOptions{Padding: 1, NoBias: true}), nn.NewBatchNorm2d(in, 4, nil), nn.Activation{},
		nn.NewConv2d(in, 4, 5, 3, &nn.ConvOptions{Padding: 1, NoBias: true}), nn.NewBatchNorm2d(in, 5, nil), nn.Activation{},
		nn.NewConv2d(in, 5, 2, 1, nil),
	}
	cfg := train.Default()
	cfg.MicroBatches, cfg.Clip, cfg.SyncBatchNorm = 2, 0.5, true
	l, err := train.New(net, rgb(), cfg, &train.Parts{
		Group: group, Metrics: []metric.Metric{metric.KernelDice(0.5, metric.Noise{})},
	})
	if err != nil {
		return nil, err
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
	return out, err
}

// n processes of b images are one process of n times b, to the rounding of float64.
func TestRanks(t *testing.T) {
	if err := dist.Available(); err != nil {
		t.Skip(err)
	}
	want, err := learn(nil)
	require.NoError(t, err)
	for _, n := range []int{2, 3} {
		path := filepath.Join(t.TempDir(), "learnt.json")
		t.Setenv(ranksVariable, path)
		require.NoError(t, dist.Launch(t.Context(), n, []string{os.Args[0]}, nil))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var got learnt
		require.NoError(t, json.Unmarshal(text, &got))

		const rounding = 1e-12 // sums of some hundred numbers, over ten steps
		require.Len(t, got.Weights, len(want.Weights))
		for name, w := range want.Weights {
			require.InDeltaSlice(t, w, got.Weights[name], rounding, "%s of %d processes", name, n)
		}
		require.Len(t, got.Epochs, len(want.Epochs))
		for i, e := range want.Epochs {
			require.InDelta(t, e.TrainLoss, got.Epochs[i].TrainLoss, rounding)
			require.Len(t, got.Epochs[i].Values, len(e.Values))
			for j, v := range e.Values {
				require.InDelta(t, v.Value, got.Epochs[i].Values[j].Value, 1e-7, "%s of %d processes", v.Name, n) // from float32 probabilities
			}
		}
		require.InDeltaSlice(t, want.Probabilities, got.Probabilities, 1e-6)
	}
}

func TestGroupRefuses(t *testing.T) {
	_, err := train.New(newTiny(t, nn.Float), rgb(), notebook(4, 1), &train.Parts{Group: &dist.Group{}})
	require.ErrorContains(t, err, `take "mean" for several`)
}
