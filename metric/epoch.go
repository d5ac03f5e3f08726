package metric

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// An Epoch is one row of the table of a training run: what was measured in one
// epoch. The training loop makes it; reports make tables, plots and files from
// it.
type Epoch struct {
	Phase     string        // of the run, such as "frozen" or "full"
	Epoch     int           // counted from 0 over the whole run; a new phase does not restart at 0
	TrainLoss float64       // running mean of the batch losses, as the training loop defines it
	Values    Values        // measured on the validation images; the same names in the same order in every epoch of a run
	Rate      float64       // highest learning rate of all layer groups, at the end of the epoch
	Speed     float64       // training images per second
	Time      time.Duration // of the whole epoch, validation included
}

// ValidLoss is the name of the mean loss of the validation images among an
// epoch's values.
const ValidLoss = "valid_loss"

// Value returns the value of that name, NaN if there is none.
func (e Epoch) Value(name string) float64 { return e.Values.Get(name) }

// epochJSON is the JSON form of an Epoch.
type epochJSON struct {
	Phase     string  `json:"phase"`
	Epoch     int     `json:"epoch"`
	TrainLoss number  `json:"train_loss"`
	Values    Values  `json:"values"`
	Rate      number  `json:"rate"`
	Speed     number  `json:"images_per_second"`
	Seconds   float64 `json:"seconds"`
}

// MarshalJSON writes an epoch as one object. The values keep their order.
func (e Epoch) MarshalJSON() ([]byte, error) {
	return json.Marshal(epochJSON{e.Phase, e.Epoch, number(e.TrainLoss), e.Values, number(e.Rate), number(e.Speed), e.Time.Seconds()})
}

// UnmarshalJSON reads what MarshalJSON wrote. The time is rounded to the nearest
// nanosecond; everything else is exact.
func (e *Epoch) UnmarshalJSON(b []byte) error {
	var j epochJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*e = Epoch{j.Phase, j.Epoch, float64(j.TrainLoss), j.Values, float64(j.Rate), float64(j.Speed), time.Duration(math.Round(j.Seconds * float64(time.Second)))}
	return nil
}

// A Value is a number that was measured, and its name. NaN means that there was
// nothing to measure, such as the specificity of a set without negatives.
type Value struct {
	Name  string
	Value float64
}

// Values are numbers in a fixed order. In JSON they are one object in that order.
type Values []Value

// Get returns the value of that name, NaN if there is none.
func (vs Values) Get(name string) float64 {
	for _, v := range vs {
		if v.Name == name {
			return v.Value
		}
	}
	return math.NaN()
}

// MarshalJSON writes NaN as null and infinities as the strings "+Inf" and "-Inf".
func (vs Values) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, v := range vs {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(v.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(number(v.Value))
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON wrote, in its order.
func (vs *Values) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	start, err := d.Token()
	if err != nil {
		return err
	}
	*vs = nil
	if start == nil { // null
		return nil
	}
	if start != json.Delim('{') {
		return fmt.Errorf("metric: values are %s, wanted an object of names and numbers", b)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var v number
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("metric: value %q: %w", name, err)
		}
		*vs = append(*vs, Value{name.(string), float64(v)})
	}
	return nil
}

// number is a float64 whose JSON form can also be NaN (null) or infinite.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	switch v := float64(n); {
	case math.IsNaN(v):
		return []byte("null"), nil
	case math.IsInf(v, 1):
		return []byte(`"+Inf"`), nil
	case math.IsInf(v, -1):
		return []byte(`"-Inf"`), nil
	default:
		return json.Marshal(v)
	}
}

func (n *number) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "null":
		*n = number(math.NaN())
	case `"+Inf"`:
		*n = number(math.Inf(1))
	case `"-Inf"`:
		*n = number(math.Inf(-1))
	default:
		return json.Unmarshal(b, (*float64)(n))
	}
	return nil
}
