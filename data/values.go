package data

import (
	"encoding/json"
	"fmt"
)

// Values holds a number for each channel of an image. In JSON, a single value is
// a plain number, not a list.
type Values []float64

// MarshalJSON implements json.Marshaler.
func (v Values) MarshalJSON() ([]byte, error) {
	if len(v) == 1 {
		return json.Marshal(v[0])
	}
	return json.Marshal([]float64(v))
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Values) UnmarshalJSON(b []byte) error {
	var one *float64
	if json.Unmarshal(b, &one) == nil && one != nil {
		*v = Values{*one}
		return nil
	}
	return json.Unmarshal(b, (*[]float64)(v))
}

// Format writes a single value as it is and several in brackets.
func (v Values) Format(f fmt.State, verb rune) {
	if len(v) == 1 {
		fmt.Fprintf(f, fmt.FormatString(f, verb), v[0])
		return
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), []float64(v))
}
