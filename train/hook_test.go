package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

var twoPhases = []train.Phase{
	{Name: "a", Epochs: 1, Rates: train.SameRates(1e-3, 3)},
	{Name: "b", Epochs: 2, Rates: train.SameRates(1e-3, 3), Schedule: train.Constant{}},
}

// diary returns a hook that appends a line to moments for each of its calls.
func diary(moments *[]string) train.Hook {
	note := func(text string) error { *moments = append(*moments, text); return nil }
	return train.Hook{
		PhaseStart: func(p train.Phase) error { return note("phase " + p.Name) },
		EpochStart: func(e int) error { return note(fmt.Sprint("epoch ", e)) },
		StepStart:  func(s train.StepInfo) error { return note(fmt.Sprint("step ", s.Step)) },
		StepEnd:    func(train.StepInfo) error { return note("stepped") },
		BatchEnd:   func(b train.BatchInfo) error { return note(fmt.Sprint("batch ", b.Iteration)) },
		EvalStart:  func() error { return note("eval") },
		EvalEnd:    func() error { return note("evaluated") },
		EpochEnd:   func(e metric.Epoch) error { return note(fmt.Sprintf("row %s %d", e.Phase, e.Epoch)) },
		PhaseEnd:   func(p train.Phase) error { return note("end " + p.Name) },
		Pause:      func(*train.Learner) error { return note("pause") },
	}
}

func TestMoments(t *testing.T) {
	var got []string
	l := learner(t, newTiny(t, nn.Float), mean(2, 0), diary(&got))
	_, err := l.Fit(context.Background(), formulaBatches("laws", 3, 1, 8, 0.3), formulaBatches("laws", 1, 1, 8, 0.3), twoPhases...)
	require.NoError(t, err)
	epoch := func(e, step, iteration int) []string {
		return []string{
			fmt.Sprint("epoch ", e),
			fmt.Sprint("batch ", iteration), "pause",
			fmt.Sprint("step ", step), "stepped", fmt.Sprint("batch ", iteration+1), "pause",
			fmt.Sprint("batch ", iteration+2), "pause",
			fmt.Sprint("step ", step+1), "stepped", "eval", "evaluated",
		}
	}
	want := []string{"phase a"}
	want = append(append(want, epoch(0, 0, 0)...), "row a 0", "end a", "pause", "phase b")
	want = append(append(want, epoch(1, 2, 0)...), "row b 1", "pause")
	want = append(append(want, epoch(2, 4, 3)...), "row b 2", "end b", "pause")
	require.Equal(t, want, got)
}

// If one hook stops the run or fails, the other hooks are still called for the same moment.
// A stop is not an error: the run ends in the next pause, after the batch is complete.
func TestStopAndFail(t *testing.T) {
	broken := errors.New("the disk is full")
	source := formulaBatches("laws", 3, 1, 8, 0.3)
	for name, c := range map[string]struct {
		hook   train.Hook
		err    error
		epochs int // rows
		last   string
	}{
		"stop at a batch":        {train.Hook{BatchEnd: func(b train.BatchInfo) error { return at(b.Epoch == 1 && b.Iteration == 1, train.Stop) }}, nil, 1, "pause"},
		"stop at a step":         {train.Hook{StepEnd: func(s train.StepInfo) error { return at(s.Step == 4, train.Stop) }}, nil, 1, "pause"},
		"stop at an epoch":       {train.Hook{EpochEnd: func(e metric.Epoch) error { return at(e.Epoch == 1, train.Stop) }}, nil, 2, "pause"},
		"stop in a pause":        {train.Hook{Pause: func(*train.Learner) error { return train.Stop }}, nil, 0, "pause"},
		"end the phase":          {train.Hook{BatchEnd: func(b train.BatchInfo) error { return at(b.Epoch == 1 && b.Iteration == 1, train.EndPhase) }}, nil, 1, "pause"},
		"end the phase at epoch": {train.Hook{EpochEnd: func(e metric.Epoch) error { return at(e.Epoch == 1, fmt.Errorf("enough: %w", train.EndPhase)) }}, nil, 2, "pause"},
		"fail at a batch":        {train.Hook{BatchEnd: func(b train.BatchInfo) error { return at(b.Epoch == 1, broken) }}, broken, 1, "batch 0"},
		"fail at an epoch":       {train.Hook{EpochEnd: func(e metric.Epoch) error { return at(e.Epoch == 1, broken) }}, broken, 2, "row b 1"},
		"fail at the start":      {train.Hook{PhaseStart: func(train.Phase) error { return broken }}, broken, 0, "phase a"},
		"stop wins":              {train.Hook{BatchEnd: func(train.BatchInfo) error { return train.EndPhase }, StepEnd: func(train.StepInfo) error { return train.Stop }}, nil, 0, "pause"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			l := learner(t, newTiny(t, nn.Float), mean(1, 0), diary(&got), c.hook)
			epochs, err := l.Fit(context.Background(), source, nil, twoPhases...)
			require.ErrorIs(t, err, c.err)
			require.Len(t, epochs, c.epochs)
			require.Equal(t, c.last, got[len(got)-1])
		})
	}
}

func at(now bool, err error) error {
	if now {
		return err
	}
	return nil
}

// After EndPhase the run continues with the next phase, whose epochs count on.
func TestEndPhaseGoesOn(t *testing.T) {
	var got []string
	l := learner(t, newTiny(t, nn.Float), mean(1, 0), diary(&got), train.Hook{BatchEnd: func(b train.BatchInfo) error {
		return at(b.Epoch == 0 && b.Iteration == 1, train.EndPhase)
	}})
	epochs, err := l.Fit(context.Background(), formulaBatches("laws", 3, 1, 8, 0.3), nil, twoPhases...)
	require.NoError(t, err)
	require.Len(t, epochs, 2)
	require.Equal(t, 1, epochs[0].Epoch)
	require.Contains(t, got, "end a")
}

// Epochs are counted over all phases and all calls of Fit, so that the source does not
// repeat the order of earlier epochs.
func TestEpochsOfTheRun(t *testing.T) {
	var asked []int
	source := asking{formulaBatches("laws", 1, 1, 8, 0.3), &asked}
	l := learner(t, newTiny(t, nn.Float), mean(1, 0))
	_, err := l.Fit(context.Background(), source, nil, twoPhases...)
	require.NoError(t, err)
	rows, err := l.Fit(context.Background(), source, nil, twoPhases[1])
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2, 3, 4}, asked)
	require.Equal(t, 3, rows[0].Epoch)
}

// The average of the weights follows its formula, validation uses the average, and training
// is the same as without an average.
func TestAverage(t *testing.T) {
	testdevice.Repeatable(t)
	model := newTiny(t, nn.Double)
	bias := nn.Parameters(model)[8].Tensor // c.0.bias
	values := func() []float64 {
		v, err := nn.Slice[float64](bias)
		require.NoError(t, err)
		return v
	}
	average, err := train.KeepAverage(model, 0.75)
	require.NoError(t, err)
	var want []float64
	seen := 0
	look := train.Hook{
		StepEnd: func(train.StepInfo) error {
			for i, v := range values() {
				if want == nil || len(want) <= i {
					want = append(want, v)
				} else {
					want[i] = 0.75*want[i] + 0.25*v
				}
			}
			return nil
		},
		EvalEnd: func() error { // called before average's EvalEnd, which restores the weights
			golden.Close(t, "average", values(), want, 1e-14) // a few roundings each step
			seen++
			return nil
		},
	}
	source := formulaBatches("b3.train", 3, 2, 8, 0.3)
	fit := func(m *tiny, hooks ...train.Hook) {
		_, err := learner(t, m, mean(1, 1), hooks...).Fit(context.Background(), source, source, twoPhases...)
		require.NoError(t, err)
	}
	fit(model, look, average.Hook())
	require.Equal(t, 3, seen)
	plainly := newTiny(t, nn.Double)
	fit(plainly)
	require.Equal(t, state(t, plainly), state(t, model), "training is as without an average")
	require.NoError(t, average.Swap())
	golden.Close(t, "average", values(), want, 1e-14)
	for _, bad := range []float64{-0.1, 1, 2} {
		_, err := train.KeepAverage(model, bad)
		require.Error(t, err)
	}
}

// With a patience of 1, the second epoch in a row without improvement ends the phase. NaN,
// and an improvement by less than MinDelta, are no improvement.
func TestEarlyStop(t *testing.T) {
	for _, c := range []struct {
		losses []float64
		ends   int // epoch that ends the phase; -1 for none
	}{
		{[]float64{1, 0.9, 0.95, 0.92, 0.1}, 3},
		{[]float64{1, 1.1, 0.9, 0.95, 0.7, 0.8}, -1},
		{[]float64{1, 0.995, 0.992}, 2},
		{[]float64{math.NaN(), math.NaN()}, 1},
	} {
		hook := (&train.EarlyStop{By: train.ByLoss, Patience: 1, MinDelta: 0.01}).Hook()
		for range 2 { // each phase starts counting again
			require.NoError(t, hook.PhaseStart(train.Phase{}))
			ends := -1
			for e, v := range c.losses {
				if err := hook.EpochEnd(row(e, v, 0)); err != nil {
					require.Equal(t, train.EndPhase, err)
					ends = e
					break
				}
			}
			require.Equal(t, c.ends, ends, "%v", c.losses)
		}
	}
}

// RestoreMean sets the weights to the mean of the two best of four epochs, and Settle
// computes the running statistics for them.
func TestMeanOfTheBest(t *testing.T) {
	model := newTiny(t, nn.Double)
	bias := nn.Parameters(model)[8].Tensor
	best := train.KeepBest(model, byDice, 2)
	for e, d := range []float64{0.5, 0.7, 0.2, 0.6} {
		nn.CopyInto(bias, nn.Full(nn.CPU, nn.Double, float64(e), 2))
		require.NoError(t, best.Observe(row(e, 0, d)))
	}
	e, ok := best.Epoch()
	require.True(t, ok)
	require.Equal(t, 1, e.Epoch)
	require.NoError(t, best.RestoreMean())
	v, err := nn.Slice[float64](bias)
	require.NoError(t, err)
	require.Equal(t, []float64{2, 2}, v) // the mean of epochs 1 and 3

	// The statistics are the mean over the batches and do not depend on earlier values: the
	// same batch twice gives the same statistics.
	batch := formulaBatches("laws", 1, 2, 8, 0.3)
	l := learner(t, model, train.Default())
	require.NoError(t, l.Settle(context.Background(), batch))
	first := state(t, model)
	require.NoError(t, l.Settle(context.Background(), append(batch, batch[0])))
	twice, ok := state(t, model).Lookup("a.1.running_var")
	require.True(t, ok)
	once, _ := first.Lookup("a.1.running_var")
	a, err := once.Float64s()
	require.NoError(t, err)
	b, err := twice.Float64s()
	require.NoError(t, err)
	golden.Close(t, "statistics of a batch seen twice", b, a, 1e-14)
}

// Any number of goroutines may predict with a learner at the same time, with exactly the
// same results. During Fit, Predict and other calls return ErrBusy, and during Predict,
// Fit does.
func TestBusy(t *testing.T) {
	source := formulaBatches("laws", 3, 2, 8, 0.3)
	model := newTiny(t, nn.Float)
	var l *train.Learner
	refused := 0
	predict := func(each func(*train.Prediction) error) error {
		return l.Predict(context.Background(), source, train.FlipAverage, each)
	}
	l = learner(t, model, mean(1, 0), train.Hook{BatchEnd: func(train.BatchInfo) error {
		require.ErrorIs(t, predict(nil), train.ErrBusy)
		_, err := l.Fit(context.Background(), source, nil, twoPhases...)
		require.ErrorIs(t, err, train.ErrBusy)
		_, err = l.FindRate(context.Background(), source, nil)
		require.ErrorIs(t, err, train.ErrBusy)
		require.ErrorIs(t, l.Settle(context.Background(), source), train.ErrBusy)
		require.ErrorIs(t, l.SetState(nil), train.ErrBusy)
		refused++
		return nil
	}})
	_, err := l.Fit(context.Background(), source, nil, twoPhases...)
	require.NoError(t, err)
	require.Equal(t, 9, refused)

	before := state(t, model)
	probs := func() (all []float32, err error) {
		err = predict(func(p *train.Prediction) error { all = append(all, p.Prob...); return nil })
		return all, err
	}
	want, err := probs()
	require.NoError(t, err)
	var g sync.WaitGroup
	got, errs := make([][]float32, 8), make([]error, 8)
	for i := range got {
		g.Go(func() {
			for range 5 {
				got[i], errs[i] = probs()
			}
		})
	}
	g.Wait()
	for i := range got {
		require.NoError(t, errs[i])
		require.Equal(t, want, got[i])
	}
	require.Equal(t, before, state(t, model), "predicting changes nothing")
	require.NoError(t, predict(func(*train.Prediction) error {
		_, err := l.Fit(context.Background(), source, nil, twoPhases...)
		require.ErrorIs(t, err, train.ErrBusy)
		return nil
	}))
}

// With three classes, a network must return three scores for softmax and two for sigmoids;
// another number is an error.
func TestOutputs(t *testing.T) {
	task := data.Task{Classes: []string{"background", "left", "right"}, Channels: 3}
	for output, scores := range map[data.Output]int64{data.Softmax: 3, data.Sigmoid: 2} {
		task.Output = output
		fit := func(channels int64) (*train.Learner, []metric.Epoch, error) {
			model := nn.Sequential{nn.NewConv2d(nn.NewInit(nn.CPU, 1), 3, channels, 3, &nn.ConvOptions{Padding: 1})}
			l, err := train.New(model, task, train.Default(), nil)
			require.NoError(t, err)
			source := formulaBatches("laws", 2, 2, 8, 0.3)
			source[0].Targets[5] = 2
			epochs, err := l.Fit(context.Background(), source, source, train.Phase{Epochs: 30, Rates: []float64{0.02}})
			return l, epochs, err
		}
		l, epochs, err := fit(scores)
		require.NoError(t, err)
		require.Less(t, epochs[29].Value(metric.ValidLoss), epochs[0].Value(metric.ValidLoss)-0.05, "%v learns", output)
		require.NoError(t, l.Predict(context.Background(), formulaBatches("laws", 1, 2, 8, 0.3), train.NoFlip, func(p *train.Prediction) error {
			sum := float64(p.Class(1)[7] + p.Class(2)[7])
			if output == data.Softmax {
				require.InDelta(t, 1, sum+float64(p.Class(0)[7]), 1e-6) // float32
			}
			require.Len(t, p.Prob, int(scores)*64)
			return nil
		}))
		_, _, err = fit(scores + 1)
		require.ErrorContains(t, err, fmt.Sprintf("for a task of 3 classes with %v it must return [2 %d 8 8]", output, scores))
	}
}
