package data

import (
	"encoding/json"
	"fmt"
	"strings"
)

// words are the names of a closed choice: that of value v is list[v].
type words[T ~int] struct {
	what string
	list []string
}

func (w words[T]) word(v T) string {
	if v < 0 || int(v) >= len(w.list) {
		return fmt.Sprintf("%s(%d)", w.what, int(v))
	}
	return w.list[v]
}

func (w words[T]) marshal(v T) ([]byte, error) {
	if v < 0 || int(v) >= len(w.list) {
		return nil, fmt.Errorf("data: %s %d; wanted %s", w.what, int(v), strings.Join(w.list, " or "))
	}
	return []byte(w.list[v]), nil
}

func (w words[T]) parse(b []byte) (T, error) {
	for v, word := range w.list {
		if string(b) == word {
			return T(v), nil
		}
	}
	return 0, fmt.Errorf("data: %s %q; wanted %s", w.what, b, strings.Join(w.list, " or "))
}

// Values are numbers of each channel of an image. In JSON a single one stands by
// itself.
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
