package feed

import "fmt"

// Last says what becomes of the last batch of an epoch where the number of images
// is no multiple of a batch's.
type Last int

const (
	// KeepLast yields it as it is.
	KeepLast Last = iota

	// DropLone leaves it out if it is a single image, which says nothing about the
	// statistics of a batch, and yields it otherwise.
	DropLone

	// DropLast leaves it out, as fastai does in training.
	DropLast
)

var lastWords = []string{"keep", "drop_lone", "drop"}

// String returns "keep", "drop_lone" or "drop".
func (l Last) String() string {
	if l < 0 || int(l) >= len(lastWords) {
		return fmt.Sprintf("last(%d)", int(l))
	}
	return lastWords[l]
}

// MarshalText implements encoding.TextMarshaler.
func (l Last) MarshalText() ([]byte, error) {
	if l < 0 || int(l) >= len(lastWords) {
		return nil, fmt.Errorf("feed: last batch %d; wanted keep, drop_lone or drop", int(l))
	}
	return []byte(lastWords[l]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Last) UnmarshalText(b []byte) error {
	for v, word := range lastWords {
		if string(b) == word {
			*l = Last(v)
			return nil
		}
	}
	return fmt.Errorf("feed: last batch %q; wanted keep, drop_lone or drop", b)
}

// batches returns how many batches of a size there are in n images.
func (l Last) batches(n, size int) int {
	full, rest := n/size, n%size
	if rest == 0 || l == DropLast || l == DropLone && rest == 1 && full > 0 {
		return full
	}
	return full + 1
}
