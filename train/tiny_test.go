package train_test

import (
	"fmt"
	"iter"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// tiny is the model of golden/b3_optim, with three layer groups.
type tiny struct{ a, b, c nn.Sequential }

func newTiny(t testing.TB, dtype nn.DType) *tiny {
	in := &nn.Init{Device: testdevice.Device, DType: dtype}
	m := &tiny{
		nn.Sequential{nn.NewConv2d(in, 3, 4, 3, &nn.ConvOptions{Padding: 1, NoBias: true}), nn.NewBatchNorm2d(in, 4, nil), nn.Activation{}},
		nn.Sequential{nn.NewConv2d(in, 4, 5, 3, &nn.ConvOptions{Padding: 1}), nn.NewBatchNorm2d(in, 5, nil), nn.Activation{}},
		nn.Sequential{nn.NewConv2d(in, 5, 2, 1, nil)},
	}
	f, err := nn.SaveState(m)
	require.NoError(t, err)
	golden.Weights(f, "b3.", nil)
	require.NoError(t, nn.LoadState(m, f))
	return m
}

func (m *tiny) Forward(mode nn.Mode, x torch.Tensor) torch.Tensor {
	return m.c.Forward(mode, m.b.Forward(mode, m.a.Forward(mode, x)))
}

func (m *tiny) Walk(w nn.Walker) {
	w.Child("a", m.a)
	w.Child("b", m.b)
	w.Child("c", m.c)
}

func (m *tiny) String() string { return "Tiny" }

func (m *tiny) LayerGroups() [][]nn.Named {
	groups := make([][]nn.Named, 3)
	for _, p := range nn.Parameters(m) {
		g := p.Name[0] - 'a'
		groups[g] = append(groups[g], p)
	}
	return groups
}

// mean returns the default configuration with n micro-batches for each step and clipping.
func mean(n int, clip float64) train.Config {
	c := train.Default()
	c.MicroBatches, c.Clip = n, clip
	return c
}

// notebook returns the notebook's configuration with n micro-batches for each step and
// clipping; the batch norms keep their momentum.
func notebook(n int, clip float64) train.Config {
	c := train.Kernel()
	c.MicroBatches, c.Clip, c.BatchNorm = n, clip, 0
	return c
}

// rgb returns a task of two classes on images of three channels.
func rgb() data.Task {
	task := data.Binary("foreground")
	task.Channels = 3
	return task
}

// learner returns a learner of a binary task on images of three channels, with
// the Dice of the validation images at the notebook's threshold.
func learner(t testing.TB, m train.Model, cfg train.Config, hooks ...train.Hook) *train.Learner {
	t.Helper()
	l, err := train.New(m, rgb(), cfg, &train.Parts{Metrics: []metric.Metric{metric.KernelDice(metric.KernelThreshold, metric.Noise{})}, Hooks: hooks})
	require.NoError(t, err)
	return l
}

const dice = "dice" // the name of the value of metric.KernelDice

// batches is a source that yields the same batches in each epoch.
type batches []*feed.Batch

func (b batches) Len() (n int) {
	for _, x := range b {
		n += x.N
	}
	return n
}

func (b batches) Batches() int { return len(b) }

func (b batches) Name(image int) string { return fmt.Sprintf("image %d", image) }

func (b batches) Epoch(_, from int) iter.Seq2[*feed.Batch, error] {
	return func(yield func(*feed.Batch, error) bool) {
		for _, x := range b[from:] {
			if !yield(x, nil) {
				return
			}
		}
	}
}

// formulaBatches returns the data of golden/b3_optim with the given tag: n batches, each
// with size images of side x side pixels. The target is 1 where the formula's value exceeds
// threshold.
func formulaBatches(tag string, n, size, side int, threshold float32) batches {
	images := golden.Fill(tag+".x", n*size*3*side*side, 0, 2)
	targets := make([]uint8, n*size*side*side)
	for i, v := range golden.Unit(tag+".y", len(targets)) {
		if v > threshold {
			targets[i] = 1
		}
	}
	b := make(batches, n)
	for i := range b {
		indices := make([]int, size)
		for j := range indices {
			indices[j] = i*size + j
		}
		b[i] = &feed.Batch{N: size, C: 3, H: side, W: side, Indices: indices,
			Images:  images[i*size*3*side*side : (i+1)*size*3*side*side],
			Targets: targets[i*size*side*side : (i+1)*size*side*side]}
	}
	return b
}

// asking is a source that records the epochs for which it is asked.
type asking struct {
	batches
	epochs *[]int
}

func (a asking) Epoch(epoch, from int) iter.Seq2[*feed.Batch, error] {
	*a.epochs = append(*a.epochs, epoch)
	return a.batches.Epoch(epoch, from)
}
