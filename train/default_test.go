package train_test

import (
	"context"
	"fmt"
	"math"
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

// plain is a model without batch norm. Only then two small batches have the gradient of
// one large batch, because a batch norm normalizes by the statistics of its batch.
type plain struct{ layers nn.Sequential }

func newPlain(t testing.TB) *plain {
	in := nn.NewInit(testdevice.Device, 5)
	in.DType = nn.Double
	return &plain{nn.Sequential{
		nn.NewConv2d(in, 3, 6, 3, &nn.ConvOptions{Padding: 1}), nn.Activation{},
		nn.NewConv2d(in, 6, 2, 3, &nn.ConvOptions{Padding: 1}),
	}}
}

func (m *plain) Forward(mode nn.Mode, x torch.Tensor) torch.Tensor { return m.layers.Forward(mode, x) }
func (m *plain) Walk(w nn.Walker)                                  { w.Child("layers", m.layers) }
func (m *plain) String() string                                    { return "plain" }
func (m *plain) LayerGroups() [][]nn.Named                         { return [][]nn.Named{nn.Parameters(m)} }

// joined returns b with every n batches merged into one; the last one may have fewer.
func joined(b batches, n int) batches {
	var out batches
	for i, x := range b {
		if i%n == 0 {
			y := *x
			y.Indices = nil
			y.Images, y.Targets = append([]float32{}, x.Images...), append([]uint8{}, x.Targets...)
			out = append(out, &y)
			continue
		}
		y := out[len(out)-1]
		y.N += x.N
		y.Images, y.Targets = append(y.Images, x.Images...), append(y.Targets, x.Targets...)
	}
	return out
}

// gradients trains at a rate that is too low to change any parameter. It returns the
// gradients of each step, parameter by parameter, and the norms before clipping.
func gradients(t *testing.T, accumulate int, clip float64, source feed.Source) (steps [][][]float64, norms []float64) {
	t.Helper()
	model := newPlain(t)
	tr := learner(t, model, mean(accumulate, clip), train.Hook{
		StepEnd: func(s train.StepInfo) error {
			var g [][]float64
			for _, p := range nn.Parameters(model) {
				grad, ok := nn.Grad(p.Tensor)
				require.True(t, ok)
				v, err := nn.Slice[float64](grad)
				require.NoError(t, err)
				g = append(g, v)
			}
			steps = append(steps, g)
			return nil
		},
		BatchEnd: func(b train.BatchInfo) error {
			if !math.IsNaN(b.Norm) {
				norms = append(norms, b.Norm)
			}
			return nil
		},
	})
	_, err := tr.Fit(context.Background(), source, nil, train.Phase{Name: "still", Epochs: 2, Rates: []float64{1e-30}})
	require.NoError(t, err)
	return steps, norms
}

// n micro-batches of b images give the gradient of one batch of n*b images. The remaining
// micro-batches at the end of an epoch make a smaller step of their own, a smaller last
// micro-batch counts by its number of images, and the averaged gradient is clipped.
func TestAccumulationIsALargeBatch(t *testing.T) {
	// The products of up to 768 pixels are added in another order: about sqrt(768) = 28
	// roundings of 1.1e-16 of their magnitudes, whose sum may be a tenth of them.
	const sums = 1e-13
	for _, c := range []struct{ batches, size, last, accumulate int }{
		{batches: 4, size: 2, last: 2, accumulate: 2},
		{batches: 6, size: 1, last: 1, accumulate: 3},
		{batches: 5, size: 2, last: 2, accumulate: 2}, // one micro-batch remains
		{batches: 7, size: 3, last: 3, accumulate: 4}, // three micro-batches remain
		{batches: 4, size: 3, last: 1, accumulate: 2}, // the last micro-batch has 1 image, the others 3
		{batches: 5, size: 3, last: 2, accumulate: 3}, // two micro-batches remain, the last one is smaller
		{batches: 2, size: 2, last: 2, accumulate: 9}, // the epoch is shorter than a step
	} {
		source := formulaBatches("laws", c.batches, c.size, 8, 0.3)
		source[c.batches-1].N, source[c.batches-1].Indices = c.last, nil
		source[c.batches-1].Images = source[c.batches-1].Images[:c.last*3*64]
		source[c.batches-1].Targets = source[c.batches-1].Targets[:c.last*64]
		large := joined(source, c.accumulate)
		for _, clip := range []float64{0, 0.05, 1e9} {
			t.Run(fmt.Sprintf("%v, clip %v", c, clip), func(t *testing.T) {
				micro, microNorms := gradients(t, c.accumulate, clip, source)
				want, norms := gradients(t, 1, clip, large)
				require.Len(t, want, 2*len(large))
				require.Len(t, micro, len(want))
				for i := range want {
					squares := 0.0
					for j := range want[i] {
						golden.Close(t, fmt.Sprintf("step %d, parameter %d", i, j), micro[i][j], want[i][j], sums)
						for _, g := range micro[i][j] {
							squares += g * g
						}
					}
					if clip == 0.05 {
						// The norm is multiplied by clip/(norm+1e-6); norms are around 1.
						require.InEpsilon(t, clip, math.Sqrt(squares), 1e-5, "all of these are larger")
					}
				}
				if clip > 0 && c.batches%c.accumulate == 0 {
					require.InEpsilonSlice(t, norms, microNorms, sums)
				}
			})
		}
	}
}

// The same holds over many steps. In a search for a learning rate, one iteration is one
// step, whatever the number of micro-batches, so both searches have the same rates.
func TestAccumulationTrajectory(t *testing.T) {
	source := formulaBatches("laws", 6, 2, 8, 0.3)
	search := func(accumulate int, source feed.Source) (losses []float64) {
		points, err := learner(t, newPlain(t), mean(accumulate, 0.1)).FindRate(
			context.Background(), source, &train.FindOptions{Start: []float64{1e-3}, End: []float64{1e-1}, Iterations: 20})
		require.NoError(t, err)
		require.Len(t, points, 20)
		for _, p := range points {
			losses = append(losses, p.Loss)
		}
		return losses
	}
	want := search(1, joined(source, 3))
	require.Less(t, want[19], want[0]-0.01, "it learns")
	golden.Close(t, "losses", search(3, source), want, 1e-12)
}

// Under the default accumulation there is one step for each full or incomplete group of
// micro-batches, with and without validation; no step is taken without gradients.
func TestSteps(t *testing.T) {
	for _, c := range []struct {
		config             func(n int, clip float64) train.Config
		batches, n         int
		valid              bool
		steps, atEpochEnds int
	}{
		{mean, 4, 2, false, 4, 0},
		{mean, 4, 2, true, 4, 0},
		{mean, 5, 2, false, 6, 2},
		{mean, 5, 2, true, 6, 2},
		{mean, 3, 1, true, 6, 0},
		{mean, 1, 8, true, 2, 2},
		{notebook, 6, 4, false, 4, 0},
		{notebook, 6, 4, true, 6, 2}, // the notebook also makes a step without gradients after each epoch
	} {
		steps, ends := 0, 0
		var valid feed.Source
		if c.valid {
			valid = formulaBatches("laws.valid", 3, 2, 8, 0.3)
		}
		tr := learner(t, newPlain(t), c.config(c.n, 0), train.Hook{StepEnd: func(s train.StepInfo) error {
			steps++
			if s.EpochEnd {
				ends++
			}
			return nil
		}})
		_, err := tr.Fit(context.Background(), formulaBatches("laws", c.batches, 2, 8, 0.3), valid, train.Phase{Epochs: 2, Rates: []float64{1e-3}})
		require.NoError(t, err)
		require.Equal(t, []int{c.steps, c.atEpochEnds}, []int{steps, ends}, "%d batches, %d a step, valid %v", c.batches, c.n, c.valid)
	}
}

// Under the default recipe, validation changes nothing: the model and the training losses
// are the same without it.
func TestValidationOnlyLooks(t *testing.T) {
	testdevice.Repeatable(t)
	source := formulaBatches("laws", 5, 2, 8, 0.3)
	fit := func(valid feed.Source) (*tiny, []metric.Epoch) {
		model := newTiny(t, nn.Double)
		epochs, err := learner(t, model, mean(2, 1)).Fit(
			context.Background(), source, valid, train.Phase{Epochs: 3, Rates: train.SameRates(1e-2, 3)})
		require.NoError(t, err)
		return model, epochs
	}
	with, seen := fit(formulaBatches("laws.valid", 3, 2, 8, 0.3))
	without, unseen := fit(nil)
	require.Equal(t, state(t, without), state(t, with))
	for i := range seen {
		require.Equal(t, unseen[i].TrainLoss, seen[i].TrainLoss)
		require.Empty(t, unseen[i].Values)
		require.False(t, math.IsNaN(seen[i].Value(metric.ValidLoss)) || math.IsNaN(seen[i].Value(dice)))
	}
}

// Validation comes after the last step of the epoch, also one with the remaining
// micro-batches: a further epoch that does not change the parameters has the same
// validation loss.
func TestValidationSeesTheLastStep(t *testing.T) {
	model := newPlain(t)
	fit := func(rate float64) float64 {
		epochs, err := learner(t, model, mean(2, 0)).Fit(context.Background(),
			formulaBatches("laws", 5, 2, 8, 0.3), formulaBatches("laws.valid", 3, 2, 8, 0.3), train.Phase{Epochs: 1, Rates: []float64{rate}})
		require.NoError(t, err)
		return epochs[0].Value(metric.ValidLoss)
	}
	require.Equal(t, fit(1e-1), fit(1e-30))
}

// At a rate near zero no parameter changes; only the running statistics do.
func TestRateNearZero(t *testing.T) {
	for _, cfg := range []train.Config{mean(2, 1), notebook(2, 1)} {
		model := newTiny(t, nn.Double)
		before := state(t, model)
		_, err := learner(t, model, cfg).Fit(context.Background(),
			formulaBatches("laws", 5, 2, 8, 0.3), formulaBatches("laws.valid", 3, 2, 8, 0.3), train.Phase{Epochs: 2, Rates: train.SameRates(1e-30, 3)})
		require.NoError(t, err)
		after := state(t, model)
		for i, n := range nn.State(model) {
			if n.Buffer {
				require.NotEqual(t, before.Tensors[i], after.Tensors[i], n.Name)
			} else {
				require.Equal(t, before.Tensors[i], after.Tensors[i], n.Name)
			}
		}
	}
}

// A network learns one batch with random masks almost perfectly.
func TestOverfit(t *testing.T) {
	for _, cfg := range []train.Config{mean(1, 1), notebook(1, 1)} {
		in := nn.NewInit(testdevice.Device, 3)
		conv := func(from, to int64) nn.Layer { return nn.NewConv2d(in, from, to, 3, &nn.ConvOptions{Padding: 1}) }
		model := &plain{nn.Sequential{conv(3, 48), nn.Activation{}, conv(48, 48), nn.Activation{}, conv(48, 2)}}
		batch := formulaBatches("laws", 1, 1, 8, 0.3)
		epochs, err := learner(t, model, cfg).Fit(context.Background(), batch, batch, train.Phase{Epochs: 150, Rates: []float64{1e-2}})
		require.NoError(t, err)
		last := epochs[len(epochs)-1]
		require.Less(t, last.Value(metric.ValidLoss), 0.02, "%v, from %v", cfg.Accumulation, epochs[0].Value(metric.ValidLoss))
		require.Greater(t, last.Value(dice), 0.97)
	}
}

// The single channel of a batch is copied to each channel of the input, and normalized.
func TestInput(t *testing.T) {
	grey := *formulaBatches("laws", 1, 2, 8, 0.3)[0]
	grey.C, grey.Images = 1, grey.Images[:2*64]
	rgb := grey
	rgb.C, rgb.Images = 3, nil
	mean, std := []float64{0.5, 0.25, -1}, []float64{2, 0.5, 1}
	for i := range 2 {
		for c := range 3 {
			for _, v := range grey.Images[i*64 : (i+1)*64] {
				rgb.Images = append(rgb.Images, float32((float64(v)-mean[c])/std[c]))
			}
		}
	}
	predict := func(b *feed.Batch, in train.Input) (prob []float32) {
		task := data.Binary("foreground")
		task.Channels = b.C
		l, err := train.New(newTiny(t, nn.Float), task, train.Default(), &train.Parts{Input: in})
		require.NoError(t, err)
		require.NoError(t, l.Predict(context.Background(), batches{b}, train.FlipAverage,
			func(p *train.Prediction) error { prob = append(prob, p.Class(1)...); return nil }))
		return prob
	}
	want := predict(&rgb, train.Input{})
	golden.Close(t, "probabilities", predict(&grey, train.Input{Mean: mean, Std: std}), want, 1e-6) // one float32 division more
}

// With FlipAverage, Predict returns the mean over an image and its mirror image, in the
// order of the source.
func TestPredict(t *testing.T) {
	model := newTiny(t, nn.Double)
	source := formulaBatches("laws", 3, 2, 8, 0.3)
	mirrored := make(batches, len(source))
	for i, b := range source {
		m := *b
		m.Images, m.Targets = make([]float32, len(b.Images)), nil
		for j := range b.Images {
			m.Images[j] = b.Images[j-j%8+7-j%8]
		}
		mirrored[i] = &m
	}
	predict := func(source feed.Source, flip train.Flip) (all [][]float32) {
		tr := learner(t, model, train.Default())
		require.NoError(t, tr.Predict(context.Background(), source, flip, func(p *train.Prediction) error {
			require.Equal(t, len(all), p.Index)
			all = append(all, p.Class(1))
			return nil
		}))
		return all
	}
	averaged, straight, flipped := predict(source, train.FlipAverage), predict(source, train.NoFlip), predict(mirrored, train.NoFlip)
	require.Len(t, averaged, 6)
	for i := range averaged {
		want := make([]float64, 64)
		for j := range want {
			want[j] = (float64(straight[i][j]) + float64(flipped[i][j-j%8+7-j%8])) / 2
		}
		golden.Close(t, fmt.Sprintf("image %d", i), averaged[i], want, 1e-7) // the last bit of float32
	}
	require.NotEqual(t, averaged, straight)
}
