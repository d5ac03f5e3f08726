package metric

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// A table keeps of a case what its thresholds need, however many pixels it has.
func TestTableMemory(t *testing.T) {
	retained := func(cases, pixels int) float64 {
		table, err := NewTable([]string{"lung"}, RefinedThresholds(4))
		require.NoError(t, err)
		probs, target := [][]float32{make([]float32, pixels)}, make([]uint8, pixels)
		for i := range pixels {
			probs[0][i], target[i] = float32(i%1009)/1009, uint8(i/7%2)
		}
		add := func(from, to int) {
			for i := from; i < to; i++ {
				require.NoError(t, table.Add(Case{Index: i}, probs, target))
			}
		}
		add(0, 10) // the table's own
		before := heap()
		add(10, 10+cases)
		grown := heap() - before
		runtime.KeepAlive(table)
		return grown / float64(cases)
	}
	few, many, large := retained(200, 64*64), retained(2000, 64*64), retained(200, 256*256)
	t.Logf("bytes a case: %.0f of 200, %.0f of 2000, %.0f of larger ones", few, many, large)
	limit := float64(2 * 8 * len(RefinedThresholds(4))) // two int32 a threshold, and as much for the rest
	require.Less(t, limit, 4*64*64., "less than the probabilities")
	require.Less(t, few, limit)
	require.Less(t, many, limit)
	require.Less(t, large, limit)
}

// heap returns the bytes in use once the collector has run, pools included.
func heap() float64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
