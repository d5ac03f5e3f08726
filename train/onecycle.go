package train

import (
	"fmt"
	"math"
)

// OneCycle is the schedule of Smith 2018, https://arxiv.org/abs/1803.09820: the
// rate rises from Max/25 to Max over the first 30 % of the iterations and falls
// to Max/250000, while momentum falls from 0.95 to 0.85 and rises again, both
// along a half cosine.
//
// Source: fastai 1.0.54, callbacks/one_cycle.py, with its defaults.
type OneCycle struct {
	Iterations int
	Max        []float64 // per layer group
}

const (
	divStart  = 25.0
	divFinal  = divStart * 1e4
	riseShare = 0.3
	momHigh   = 0.95
	momLow    = 0.85
)

// At returns the rates and the momentum in force during iteration i, counted from
// 0; from At(Iterations) on it stays where it ends.
func (o OneCycle) At(i int) (rates []float64, momentum float64) {
	rise := int(riseShare * float64(o.Iterations))
	rates = make([]float64, len(o.Max))
	if i <= rise {
		p := 0.0
		if rise > 0 {
			p = float64(i) / float64(rise)
		}
		for g, m := range o.Max {
			rates[g] = anneal(m/divStart, m, p)
		}
		return rates, anneal(momHigh, momLow, p)
	}
	p := min(float64(i-rise)/float64(o.Iterations-rise), 1)
	for g, m := range o.Max {
		rates[g] = anneal(m, m/divFinal, p)
	}
	return rates, anneal(momLow, momHigh, p)
}

// anneal goes from start to end along a half cosine as p goes from 0 to 1.
func anneal(start, end, p float64) float64 {
	return end + (start-end)/2*(math.Cos(math.Pi*p)+1)
}

// EvenRates returns one rate a group, from low for the first to high for the last,
// each the same multiple of the one before: fastai's slice(low, high).
func EvenRates(low, high float64, groups int) ([]float64, error) {
	if groups < 1 || !(low > 0) || !(high > 0) || math.IsInf(high/low, 0) {
		return nil, fmt.Errorf("train: rates from %v to %v in %d groups; rates must be positive", low, high, groups)
	}
	rates := make([]float64, groups)
	if groups == 1 {
		rates[0] = high
		return rates, nil
	}
	step := math.Pow(high/low, 1/float64(groups-1))
	for g := range rates {
		rates[g] = low * math.Pow(step, float64(g))
	}
	return rates, nil
}

// TenthRates returns rate for the last group and a tenth of it for the others:
// fastai's slice(rate).
func TenthRates(rate float64, groups int) []float64 {
	rates := SameRates(rate/10, groups)
	if groups > 0 {
		rates[groups-1] = rate
	}
	return rates
}

// SameRates returns one rate for all groups.
func SameRates(rate float64, groups int) []float64 {
	rates := make([]float64, groups)
	for g := range rates {
		rates[g] = rate
	}
	return rates
}
