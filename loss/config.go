package loss

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/internal/strict"
)

// Parameters are the parameters of one of this package's losses: a [CrossEntropy],
// [BCE], [Dice], [Jaccard], [Tversky], [Focal] or [Lovasz].
type Parameters interface {
	New(output data.Output, classes int) (Loss, error)
	kind() string
}

func (CrossEntropy) kind() string { return "cross_entropy" }
func (BCE) kind() string          { return "bce" }
func (Dice) kind() string         { return "dice" }
func (Jaccard) kind() string      { return "jaccard" }
func (Tversky) kind() string      { return "tversky" }
func (Focal) kind() string        { return "focal" }
func (Lovasz) kind() string       { return "lovasz" }

// readers decode the parameters of each loss on top of its defaults.
var readers = []struct {
	name string
	read func(b []byte) (Parameters, error)
}{
	{"cross_entropy", read(CrossEntropy{})},
	{"bce", read(BCE{})},
	{"dice", read(DefaultDice())},
	{"jaccard", read(DefaultJaccard())},
	{"tversky", read(DefaultTversky())},
	{"focal", read(DefaultFocal())},
	{"lovasz", read(Lovasz{})},
}

func read[P Parameters](defaults P) func(b []byte) (Parameters, error) {
	return func(b []byte) (Parameters, error) {
		p := defaults
		if b == nil {
			return p, nil
		}
		err := strict.Unmarshal("loss: parameters of "+p.kind(), b, &p)
		return p, err
	}
}

// A Config is a weighted sum of losses, as JSON:
//
//	[{"name": "cross_entropy", "weight": 0.5, "parameters": {"ignore_index": 255}}, {"name": "dice"}]
//
// A missing weight is 1. Missing parameters are those of the loss's Default
// function, or of its zero value if it has none. A Config that is written to JSON
// and read back is equal.
type Config []Term

// A Term is one loss of a Config.
type Term struct {
	Weight     float64 // above 0
	Parameters Parameters
}

// DefaultConfig returns cross-entropy for data.Softmax and binary cross-entropy
// for data.Sigmoid.
func DefaultConfig(output data.Output) Config {
	if output == data.Sigmoid {
		return Config{{1, BCE{}}}
	}
	return Config{{1, CrossEntropy{}}}
}

// New returns the loss for a network's output and its number of classes,
// background included.
func (c Config) New(output data.Output, classes int) (Loss, error) {
	if len(c) == 0 {
		return nil, fmt.Errorf("loss: no losses, wanted at least one of %s", names())
	}
	sum := make(Sum, len(c))
	for i, t := range c {
		if !(t.Weight > 0) || math.IsInf(t.Weight, 0) {
			return nil, fmt.Errorf("loss: term %d has weight %v, wanted a finite one above 0", i, t.Weight)
		}
		if t.Parameters == nil {
			return nil, fmt.Errorf("loss: term %d has no parameters, wanted those of %s", i, names())
		}
		l, err := t.Parameters.New(output, classes)
		if err != nil {
			return nil, err
		}
		sum[i] = Weighted{t.Weight, l}
	}
	if len(sum) == 1 && sum[0].Weight == 1 {
		return sum[0].Loss, nil
	}
	return sum, nil
}

// names lists the losses.
func names() string {
	all := make([]string, len(readers))
	for i, r := range readers {
		all[i] = r.name
	}
	return strings.Join(all, ", ")
}

// MarshalJSON implements json.Marshaler.
func (t Term) MarshalJSON() ([]byte, error) {
	if t.Parameters == nil {
		return nil, fmt.Errorf("loss: a term without parameters, wanted those of %s", names())
	}
	return json.Marshal(struct {
		Name       string     `json:"name"`
		Weight     float64    `json:"weight"`
		Parameters Parameters `json:"parameters"`
	}{t.Parameters.kind(), t.Weight, t.Parameters})
}

// UnmarshalJSON implements json.Unmarshaler. An unknown name or field is an error
// that lists the known ones.
func (t *Term) UnmarshalJSON(b []byte) error {
	v := struct {
		Name       string          `json:"name"`
		Weight     float64         `json:"weight"`
		Parameters json.RawMessage `json:"parameters"`
	}{Weight: 1}
	if err := strict.Unmarshal("loss", b, &v); err != nil {
		return err
	}
	for _, r := range readers {
		if r.name == v.Name {
			p, err := r.read(v.Parameters)
			if err == nil {
				*t = Term{v.Weight, p}
			}
			return err
		}
	}
	return fmt.Errorf("loss: name %q, wanted one of %s", v.Name, names())
}
