package prepare

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBinarize(t *testing.T) {
	for _, c := range []struct{ in, want []uint8 }{
		{[]uint8{0, 255, 0}, []uint8{0, 255, 0}},
		{[]uint8{0, 1, 0}, []uint8{0, 255, 0}},
		{[]uint8{0, 100, 0}, []uint8{0, 255, 0}},
		{[]uint8{0, 127, 128, 255}, []uint8{0, 0, 255, 255}},
		{[]uint8{0, 0}, []uint8{0, 0}},
		{[]uint8{255, 255}, []uint8{255, 255}},
	} {
		m := bytes.Clone(c.in)
		require.Equal(t, slices.Contains(c.in, 127), binarize(m))
		require.Equal(t, c.want, m)
	}
}
