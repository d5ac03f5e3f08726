package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// dropping is a model with every kind of state that must be saved: batch norm, a part that
// can be frozen, and dropout.
type dropping struct{ a, b nn.Sequential }

func newDropping() *dropping {
	in := nn.NewInit(nn.CPU, 3)
	return &dropping{
		nn.Sequential{nn.NewConv2d(in, 3, 6, 3, &nn.ConvOptions{Padding: 1}), nn.NewBatchNorm2d(in, 6, nil), nn.Activation{}},
		nn.Sequential{nn.NewDropout(0.3), nn.NewConv2d(in, 6, 2, 1, nil)},
	}
}

func (m *dropping) Forward(mode nn.Mode, x torch.Tensor) torch.Tensor {
	return m.b.Forward(mode, m.a.Forward(mode, x))
}

func (m *dropping) Walk(w nn.Walker) {
	w.Child("a", m.a)
	w.Child("b", m.b)
}

func (m *dropping) String() string { return "dropping" }

func (m *dropping) LayerGroups() [][]nn.Named {
	groups := make([][]nn.Named, 2)
	for _, p := range nn.Parameters(m) {
		g := p.Name[0] - 'a'
		groups[g] = append(groups[g], p)
	}
	return groups
}

// turning is a source whose order depends on the epoch, like that of a loader.
type turning struct{ batches }

func (s turning) Epoch(epoch, from int) iter.Seq2[*feed.Batch, error] {
	return func(yield func(*feed.Batch, error) bool) {
		for i := from; i < len(s.batches); i++ {
			if !yield(s.batches[(i+epoch)%len(s.batches)], nil) {
				return
			}
		}
	}
}

// A resumable describes a run that is interrupted at every pause in turn.
type resumable struct {
	cfg     train.Config
	average bool // average the weights, and keep the two best epochs
	early   bool // use EarlyStop
}

// run trains two phases, from the state at path if it is not "". After stop pauses, unless
// stop is 0, it saves its state to save and stops. It returns the epochs as JSON without
// times, the final weights, and the number of pauses.
func (c resumable) run(t *testing.T, path string, stop int, save string) (rows string, weights []byte, pauses int) {
	t.Helper()
	model := newDropping()
	hooks := []train.Hook{{Pause: func(l *train.Learner) error {
		if pauses++; pauses != stop {
			return nil
		}
		return errors.Join(l.SaveState(save), train.Stop)
	}}}
	var best *train.Best
	var average *train.Average
	if c.average {
		var err error
		average, err = train.KeepAverage(model, 0.7)
		require.NoError(t, err)
		best = train.KeepBest(model, train.ByLoss, 2)
		hooks = append(hooks, average.Hook(), best.Hook())
	}
	if c.early {
		hooks = append(hooks, (&train.EarlyStop{By: train.ByLoss, MinDelta: 10}).Hook())
	}
	l := learner(t, model, c.cfg, hooks...)
	if path != "" {
		require.NoError(t, l.LoadState(path))
	}
	source := turning{formulaBatches("b3.train", 3, 2, 8, 0.3)}
	valid := formulaBatches("b3.valid", 1, 2, 8, 0.3)
	epochs, err := l.Fit(context.Background(), source, valid, train.Phase{Name: "frozen", Epochs: 1, Rates: []float64{0.01, 0.01}, Frozen: true})
	require.NoError(t, err)
	if stop == 0 || pauses < stop {
		more, err := l.Fit(context.Background(), source, valid, train.Phase{Name: "full", Epochs: 3, Rates: []float64{0.003, 0.03}, Schedule: train.Cosine{}})
		require.NoError(t, err)
		epochs = append(epochs, more...)
	}
	for i := range epochs {
		epochs[i].Time, epochs[i].Speed = 0, 0
	}
	text, err := json.Marshal(epochs)
	require.NoError(t, err)
	var b bytes.Buffer
	write := func() {
		for _, tensor := range state(t, model).Tensors {
			b.Write(tensor.Data)
		}
	}
	write()
	if c.average {
		require.NoError(t, average.Swap())
		write()
		if stop == 0 {
			require.NoError(t, best.RestoreMean())
			write()
		}
	}
	return string(text), b.Bytes(), pauses
}

// A run is stopped after each batch and each epoch in turn, also in the middle of an
// accumulated step, and continued by another learner. It ends with exactly the same weights
// and epochs as a run without interruption, and with the same averages and best epochs.
func TestResumeAnywhere(t *testing.T) {
	withClip := mean(2, 0.5) // three batches make one full step and one of the remaining batch
	sgd := mean(4, 0)        // steps only at the ends of epochs
	sgd.Optimizer = nn.DefaultSGD()
	for name, c := range map[string]resumable{
		"mean":          {cfg: withClip},
		"notebook":      {cfg: notebook(3, 1)}, // the notebook also counts validation batches
		"averages":      {cfg: withClip, average: true},
		"early stop":    {cfg: withClip, early: true},
		"notebook, all": {cfg: notebook(4, 1), average: true, early: true},
		"sgd":           {cfg: sgd},
	} {
		t.Run(name, func(t *testing.T) {
			rows, weights, pauses := c.run(t, "", 0, "")
			path := filepath.Join(t.TempDir(), "state.safetensors")
			var all []metric.Epoch
			require.NoError(t, json.Unmarshal([]byte(rows), &all))
			if c.early {
				require.Len(t, all, 3, "the second phase was ended early")
			} else {
				require.Len(t, all, 4)
				require.Equal(t, 4*(3+1), pauses)
			}
			require.NotEqual(t, all[0].TrainLoss, all[1].TrainLoss)
			for stop := 1; stop < pauses; stop++ {
				_, _, _ = c.run(t, "", stop, path)
				gotRows, got, _ := c.run(t, path, 0, "")
				require.Equal(t, rows, gotRows, "stopped after pause %d", stop)
				require.True(t, bytes.Equal(weights, got), "weights after a stop at pause %d", stop)
			}
		})
	}
}

// A run that was continued can be stopped and continued again.
func TestResumeTwice(t *testing.T) {
	c := resumable{cfg: mean(2, 0.5), average: true}
	rows, weights, _ := c.run(t, "", 0, "")
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1.safetensors"), filepath.Join(dir, "2.safetensors")
	c.run(t, "", 6, first)
	c.run(t, first, 5, second)
	gotRows, got, _ := c.run(t, second, 0, "")
	require.Equal(t, rows, gotRows)
	require.True(t, bytes.Equal(weights, got))
}

// The state of another run is refused with a reason.
func TestForeignState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.safetensors")
	c := resumable{cfg: mean(2, 0.5), early: true}
	c.run(t, "", 2, path)
	source := turning{formulaBatches("b3.train", 3, 2, 8, 0.3)}
	phase := train.Phase{Name: "frozen", Epochs: 1, Rates: []float64{0.01, 0.01}, Frozen: true}
	hook := (&train.EarlyStop{By: train.ByLoss, MinDelta: 10}).Hook()

	require.ErrorContains(t, learner(t, newDropping(), mean(3, 0.5), hook).LoadState(path), "with the configuration")
	require.ErrorContains(t, learner(t, newDropping(), mean(2, 0.5)).LoadState(path), "had a hook early stop valid_loss, this one has not")
	best := train.KeepBest(newDropping(), train.ByLoss, 1).Hook()
	require.ErrorContains(t, learner(t, newDropping(), mean(2, 0.5), hook, best).LoadState(path), "had no hook best valid_loss")
	var mismatch *nn.Mismatch
	require.ErrorAs(t, learner(t, newTiny(t, nn.Float), mean(2, 0.5), hook).LoadState(path), &mismatch)

	weights := filepath.Join(t.TempDir(), "weights.safetensors")
	require.NoError(t, checkpoint.SaveSafetensors(weights, state(t, newDropping())))
	require.ErrorContains(t, learner(t, newDropping(), mean(2, 0.5), hook).LoadState(weights), "no state of a run")

	fresh := func() *train.Learner {
		l := learner(t, newDropping(), mean(2, 0.5), hook)
		require.NoError(t, l.LoadState(path))
		return l
	}
	other := phase
	other.Epochs = 3
	_, err := fresh().Fit(context.Background(), source, nil, other)
	require.ErrorContains(t, err, "the state is of phase")
	_, err = fresh().Fit(context.Background(), source.batches[:2], nil, phase)
	require.ErrorContains(t, err, "on 6 images in 3 batches, now there are 4 in 2")
	require.ErrorContains(t, fresh().LoadState(path), "for a new learner")
}

// SaveState refuses infinite weights and does not overwrite the older state.
func TestBrokenWeightsAreNotSaved(t *testing.T) {
	model := newDropping()
	l := learner(t, model, mean(1, 0))
	path := filepath.Join(t.TempDir(), "state.safetensors")
	require.NoError(t, l.SaveState(path))
	nn.CopyInto(nn.Parameters(model)[1].Tensor, nn.MulScalar(nn.Full(nn.CPU, nn.Float, 1e30, 6), 1e30))
	require.ErrorContains(t, l.SaveState(path), "the norm of the weights is +Inf")
	require.NoError(t, learner(t, newDropping(), mean(1, 0)).LoadState(path))
}

// State is refused except in a pause, because elsewhere it would not be consistent.
func TestStateOnlyInAPause(t *testing.T) {
	var l *train.Learner
	tried := 0
	try := func() error {
		tried++
		_, err := l.State()
		require.ErrorIs(t, err, train.ErrBusy)
		return nil
	}
	l = learner(t, newDropping(), mean(2, 0), train.Hook{
		PhaseStart: func(train.Phase) error { return try() },
		StepEnd:    func(train.StepInfo) error { return try() },
		BatchEnd:   func(train.BatchInfo) error { return try() },
		EpochEnd:   func(metric.Epoch) error { return try() },
	})
	_, err := l.Fit(context.Background(), formulaBatches("b3.train", 2, 2, 8, 0.3), nil, train.Phase{Epochs: 1, Rates: []float64{1e-3, 1e-3}})
	require.NoError(t, err)
	require.Equal(t, 5, tried)
}

// tear cuts a file in half.
func tear(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/2)
}

// Saver saves states periodically and loads the last complete one.
func TestSaver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.safetensors")
	source := turning{formulaBatches("b3.train", 5, 2, 8, 0.3)}
	phase := train.Phase{Name: "all", Epochs: 2, Rates: []float64{0.01, 0.01}}
	saver := &train.Saver{Path: path, Every: time.Nanosecond}
	stop := train.Hook{BatchEnd: func(b train.BatchInfo) error {
		if b.Iteration == 6 {
			return train.Stop
		}
		return nil
	}}
	l := learner(t, newDropping(), mean(2, 0.5), saver.Hook(), stop)
	found, err := saver.Resume(l)
	require.NoError(t, err)
	require.False(t, found)
	_, err = l.Fit(context.Background(), source, nil, phase)
	require.NoError(t, err)

	resume := func() string {
		model := newDropping()
		l := learner(t, model, mean(2, 0.5))
		found, err := (&train.Saver{Path: path}).Resume(l)
		require.NoError(t, err)
		require.True(t, found)
		epochs, err := l.Fit(context.Background(), source, nil, phase)
		require.NoError(t, err)
		require.Len(t, epochs, 2)
		return fmt.Sprint(state(t, model))
	}
	want := resume()
	// The newest state is cut off: Resume loads the one before, and the run ends the same.
	require.NoError(t, tear(path))
	require.Equal(t, want, resume())
	require.NoError(t, tear(path+train.Previous))
	_, err = (&train.Saver{Path: path}).Resume(learner(t, newDropping(), mean(2, 0.5)))
	require.ErrorContains(t, err, "state.safetensors: ")
}

// A state without a digest is refused, because damage could not be detected.
func TestStateNeedsDigest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.safetensors")
	require.NoError(t, learner(t, newDropping(), mean(1, 1)).SaveState(path))
	require.NoError(t, learner(t, newDropping(), mean(1, 1)).LoadState(path))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1, bytes.Count(text, []byte(`"hcunet_sha256"`)))
	require.NoError(t, os.WriteFile(path, bytes.Replace(text, []byte(`"hcunet_sha256"`), []byte(`"hcunet_sha257"`), 1), 0o666))
	require.ErrorContains(t, learner(t, newDropping(), mean(1, 1)).LoadState(path), "carries no digest of itself")
}
