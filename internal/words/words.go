// Package words has the names of closed choices, for text and JSON.
package words

import (
	"fmt"
	"strings"
)

// A Choice holds the names of a closed choice: the name of value v is Words[v].
type Choice[T ~int] struct {
	What  string // what is chosen, for messages, such as "output"
	Words []string
}

// Word returns the name of v, or for a value out of range a text with its
// number.
func (w Choice[T]) Word(v T) string {
	if v < 0 || int(v) >= len(w.Words) {
		return fmt.Sprintf("%s(%d)", w.What, int(v))
	}
	return w.Words[v]
}

// Marshal does the work of MarshalText.
func (w Choice[T]) Marshal(v T) ([]byte, error) {
	if v < 0 || int(v) >= len(w.Words) {
		return nil, fmt.Errorf("%s %d; wanted %s", w.What, int(v), either(w.Words))
	}
	return []byte(w.Words[v]), nil
}

// Parse does the work of UnmarshalText.
func (w Choice[T]) Parse(b []byte) (T, error) {
	for v, word := range w.Words {
		if string(b) == word {
			return T(v), nil
		}
	}
	return 0, fmt.Errorf("%s %q; wanted %s", w.What, b, either(w.Words))
}

// either returns "a, b or c".
func either(names []string) string {
	last := len(names) - 1
	if last < 1 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// Count returns "1 film", "2 films".
func Count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// Some lists up to n names and the number of the others.
func Some(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}
