package predict

import (
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/metric"
	"github.com/stretchr/testify/require"
)

func TestMasksOfOneClass(t *testing.T) {
	task := data.Binary("lung")
	prob := []float32{.9, .4, .5, .1, .1, .6, .5, .9}
	at := func(r metric.Rule) []uint8 { return OperatingPoint{Rules: []metric.Rule{r}}.Masks(prob, task)[0] }
	require.Equal(t, []uint8{0, 1, 0, 1}, at(metric.ThresholdRule(.5, 0)))
	require.Equal(t, []uint8{0, 0, 0, 0}, at(metric.ThresholdRule(.5, 2.2)), "the sum is 2.1")
	require.Equal(t, []uint8{0, 1, 1, 1}, at(metric.Rule{Top: .8, MinArea: 1, Bottom: .3}))
	require.Equal(t, []uint8{0, 0, 0, 0}, at(metric.Rule{Top: .8, MinArea: 2, Bottom: .3}))
}

func TestMasksOfSeveralClasses(t *testing.T) {
	task := data.Task{Classes: []string{"background", "lung", "heart"}, Channels: 1}
	rules := []metric.Rule{metric.ThresholdRule(.2, 0), metric.ThresholdRule(.3, 0)}
	softmax := []float32{
		.1, .5, .5, .3, // background
		.5, .3, .1, .35, // lung
		.4, .2, .4, .35, // heart
	}
	for _, c := range []struct {
		name        string
		argmax      bool
		lung, heart []uint8
	}{
		{"the more probable of both, and of equals the first", false, []uint8{1, 1, 0, 1}, []uint8{0, 0, 1, 0}},
		{"and more probable than the background", true, []uint8{1, 0, 0, 1}, []uint8{0, 0, 0, 0}},
	} {
		p := OperatingPoint{Rules: rules, Argmax: c.argmax}
		require.NoError(t, p.Check(task))
		require.Equal(t, [][]uint8{c.lung, c.heart}, p.Masks(softmax, task), c.name)
	}

	task.Output = data.Sigmoid
	require.ErrorContains(t, OperatingPoint{Rules: rules, Argmax: true}.Check(task), "argmax is for softmax")
	require.Equal(t, [][]uint8{{1, 1, 0, 1}, {1, 0, 1, 1}}, OperatingPoint{Rules: rules}.Masks(softmax[4:], task), "sigmoids may overlap")
}

func TestPointErrors(t *testing.T) {
	task := data.Binary("lung")
	for want, r := range map[string]metric.Rule{
		"thresholds of 0 to 1": {Top: 1.5},
		"not above":            {Top: .2, Bottom: .3},
		"no negative":          {MinArea: -1},
	} {
		require.ErrorContains(t, OperatingPoint{Rules: []metric.Rule{r}}.Check(task), want)
	}
}

// The mean is the float32 sum in the order of Add, divided by the number.
func TestMean(t *testing.T) {
	var m Mean
	require.Nil(t, m.Take())
	for range 2 {
		m.Add([]float32{.1, .7})
		m.Add([]float32{.2, .1})
		m.Add([]float32{.4, .1})
		a, b, c := float32(.1), float32(.2), float32(.4)
		require.Equal(t, float32(float32(a+b)+c)/3, m.Take()[0])
	}
	m.Add([]float32{1})
	require.Panics(t, func() { m.Add([]float32{1, 2}) })
	m.Reset()
	m.Add([]float32{3, 5})
	require.Equal(t, []float32{3, 5}, m.Take())
}
