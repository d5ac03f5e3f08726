package random

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Names that a careless encoding would confuse give different streams.
func TestStreamsDiffer(t *testing.T) {
	type name struct {
		seed    uint64
		purpose string
		numbers []uint64
	}
	names := []name{
		{0, "", nil}, {1, "", nil}, {0, "order", nil}, {0, "weights", nil},
		{0, "order", []uint64{0}}, {0, "order", []uint64{0, 0}}, {0, "order", []uint64{1}}, {1, "order", []uint64{0}},
		{0, "order\x00\x00\x00\x00\x00\x00\x00\x00", nil}, // the bytes of {0, "order", {0}}, but for the length
	}
	seen := map[uint64]name{}
	for _, n := range names {
		v := New(n.seed, n.purpose, n.numbers...).Uint64()
		require.NotContains(t, seen, v, "%v and %v", n, seen[v])
		seen[v] = n
		require.Equal(t, v, New(n.seed, n.purpose, n.numbers...).Uint64(), "%v is not repeatable", n)
	}
}

// The first numbers of a stream never change, so that later versions can repeat
// the runs of today.
func TestStreamStays(t *testing.T) {
	r := New(2019, "order", 3)
	require.Equal(t, []uint64{0x823be912f93abb4a, 0xba290500008d975d}, []uint64{r.Uint64(), r.Uint64()})
}
