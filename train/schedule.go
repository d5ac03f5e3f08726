package train

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"

	"github.com/hcunet/hcunet/internal/strict"
)

// A Schedule gives the learning rates and the momentum of a phase. OneCycle is
// the usual one; a user may write another.
type Schedule interface {
	// At returns the values for iteration i of n, counted from 0: a rate for each
	// of the highest rates of the phase, and the momentum (Adam's first beta).
	At(i, n int, highest []float64) (rates []float64, momentum float64)
}

// OneCycle is the schedule of Smith 2018, https://arxiv.org/abs/1803.09820: the
// rate rises from highest/25 to the highest rate in the first 30 % of the
// iterations and then falls to highest/250000. The momentum falls from 0.95 to
// 0.85 and rises again. Both follow half cosines.
//
// Source: fastai 1.0.54, callbacks/one_cycle.py, with its defaults.
type OneCycle struct{}

const (
	divStart  = 25.0
	divFinal  = divStart * 1e4
	riseShare = 0.3
	momHigh   = 0.95
	momLow    = 0.85
)

// At implements [Schedule]. From iteration n on it returns the final values.
func (OneCycle) At(i, n int, highest []float64) (rates []float64, momentum float64) {
	rise := int(riseShare * float64(n))
	rates = make([]float64, len(highest))
	if i <= rise {
		p := 0.0
		if rise > 0 {
			p = float64(i) / float64(rise)
		}
		for g, m := range highest {
			rates[g] = anneal(m/divStart, m, p)
		}
		return rates, anneal(momHigh, momLow, p)
	}
	p := min(float64(i-rise)/float64(n-rise), 1)
	for g, m := range highest {
		rates[g] = anneal(m, m/divFinal, p)
	}
	return rates, anneal(momLow, momHigh, p)
}

// anneal goes from start to end along a half cosine as p goes from 0 to 1.
func anneal(start, end, p float64) float64 {
	return end + (start-end)/2*(math.Cos(math.Pi*p)+1)
}

// steady is the momentum of schedules that do not change it: Adam's usual beta.
const steady = 0.9

// scaled returns the highest rates times factor(p), where p is the share of the
// phase that is done.
func scaled(i, n int, highest []float64, factor func(p float64) float64) ([]float64, float64) {
	f := factor(float64(min(i, n)) / float64(max(n, 1)))
	rates := make([]float64, len(highest))
	for g, m := range highest {
		rates[g] = m * f
	}
	return rates, steady
}

// Constant keeps the highest rates for the whole phase.
type Constant struct{}

// At implements [Schedule].
func (Constant) At(i, n int, highest []float64) ([]float64, float64) {
	return scaled(i, n, highest, func(float64) float64 { return 1 })
}

// Cosine falls from the highest rates to zero along a half cosine.
//
// Source: Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, without
// restarts.
type Cosine struct{}

// At implements [Schedule].
func (Cosine) At(i, n int, highest []float64) ([]float64, float64) {
	return scaled(i, n, highest, func(p float64) float64 { return anneal(1, 0, p) })
}

// Poly falls from the highest rates to zero as (1-p)^0.9, where p is the share
// of the phase that is done.
//
// Source: Chen et al. 2016 (DeepLab), https://arxiv.org/abs/1606.00915.
type Poly struct{}

// At implements [Schedule].
func (Poly) At(i, n int, highest []float64) ([]float64, float64) {
	return scaled(i, n, highest, func(p float64) float64 { return math.Pow(1-p, 0.9) })
}

// schedules are the schedules that a configuration can name.
var schedules = []struct {
	word     string
	schedule Schedule
}{{"one_cycle", OneCycle{}}, {"constant", Constant{}}, {"cosine", Cosine{}}, {"poly", Poly{}}}

// parseSchedule returns the schedule of that name: one_cycle, constant, cosine or
// poly.
func parseSchedule(word string) (Schedule, error) {
	for _, s := range schedules {
		if s.word == word {
			return s.schedule, nil
		}
	}
	return nil, fmt.Errorf("train: schedule %q; wanted one_cycle, constant, cosine or poly", word)
}

// A Phase is a part of the training with one schedule. In JSON the schedules of
// this package are stored by name.
type Phase struct {
	Name     string
	Epochs   int
	Rates    []float64 // highest rate of each layer group; see SameRates and EvenRates
	Frozen   bool      // train only the last layer group and all batch norms
	Schedule Schedule  // nil means OneCycle
}

func (p Phase) schedule() Schedule {
	if p.Schedule == nil {
		return OneCycle{}
	}
	return p.Schedule
}

// scheduleName returns the name of the phase's schedule; for a user's own
// schedule, the name of its type.
func (p Phase) scheduleName() string {
	for _, s := range schedules {
		if reflect.TypeOf(s.schedule) == reflect.TypeOf(p.schedule()) {
			return s.word
		}
	}
	return fmt.Sprintf("%T", p.Schedule)
}

// Check returns an error if the phase is not valid for a network with that many layer
// groups.
func (p Phase) Check(groups int) error {
	switch {
	case p.Epochs < 1:
		return fmt.Errorf("train: %sa phase of %d epochs; wanted at least 1", p.place(), p.Epochs)
	case len(p.Rates) != groups:
		return fmt.Errorf("train: %s%d learning rates for %d layer groups", p.place(), len(p.Rates), groups)
	}
	for g, r := range p.Rates {
		if !(r > 0) || math.IsInf(r, 1) {
			return fmt.Errorf("train: %slearning rate %v of layer group %d; wanted a positive number", p.place(), r, g)
		}
	}
	return nil
}

// place returns the beginning of a message about the phase; "" if it has no
// name.
func (p Phase) place() string {
	if p.Name == "" {
		return ""
	}
	return p.Name + ": "
}

type phaseJSON struct {
	Name     string    `json:"name"`
	Epochs   int       `json:"epochs"`
	Rates    []float64 `json:"rates"`
	Frozen   bool      `json:"frozen"`
	Schedule string    `json:"schedule"`
}

// MarshalJSON implements json.Marshaler.
func (p Phase) MarshalJSON() ([]byte, error) {
	return json.Marshal(phaseJSON{p.Name, p.Epochs, p.Rates, p.Frozen, p.scheduleName()})
}

// UnmarshalJSON implements json.Unmarshaler. A schedule that is not of this
// package is an error.
func (p *Phase) UnmarshalJSON(b []byte) error {
	j := phaseJSON{Schedule: schedules[0].word}
	if err := strict.Unmarshal("train: phase", b, &j); err != nil {
		return err
	}
	s, err := parseSchedule(j.Schedule)
	if err != nil {
		return err
	}
	*p = Phase{j.Name, j.Epochs, j.Rates, j.Frozen, s}
	return nil
}

// EvenRates returns one rate per group, from low for the first to high for the
// last, each a constant multiple of the one before: fastai's slice(low, high).
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
