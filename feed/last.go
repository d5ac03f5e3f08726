package feed

import "github.com/hcunet/hcunet/internal/words"

// Last says what happens to the last batch of an epoch if the number of images is
// not a multiple of the batch size.
type Last int

const (
	// KeepLast yields the smaller batch.
	KeepLast Last = iota

	// DropLone leaves the last batch out if it is a single image, which gives no
	// statistics for batch normalization, and yields it otherwise.
	DropLone

	// DropLast leaves the smaller batch out, as fastai does in training.
	DropLast
)

var lastWords = words.Choice[Last]{What: "feed: last batch", Words: []string{"keep", "drop_lone", "drop"}}

// String returns "keep", "drop_lone" or "drop".
func (l Last) String() string { return lastWords.Word(l) }

// MarshalText implements encoding.TextMarshaler.
func (l Last) MarshalText() ([]byte, error) { return lastWords.Marshal(l) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Last) UnmarshalText(b []byte) (err error) {
	*l, err = lastWords.Parse(b)
	return err
}

// batches returns the number of batches of that size in an epoch of n images.
func (l Last) batches(n, size int) int {
	full, rest := n/size, n%size
	if rest == 0 || l == DropLast || l == DropLone && rest == 1 && full > 0 {
		return full
	}
	return full + 1
}
