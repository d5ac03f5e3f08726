package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
)

// A Graph is a sequence of operations on a CUDA device that was recorded once. Replay
// repeats them on the same memory: one call takes microseconds, where thousands of single
// operations may take longer to ask for than to do.
type Graph struct{ g *shim.Graph }

// CanRecord returns nil if this program can record graphs, and otherwise why it cannot: it
// was built without CUDA's headers.
func CanRecord() error { return shim.NoGraphs() }

// Record records the operations of f, backward passes included, and does not do them.
// Tensors that f makes and keeps get their values at each [Graph.Replay]. f must do the
// same operations every time: it must not read a value from the device, and every shape
// must have been computed before, outside of a recording.
func Record(d Device, f func()) (*Graph, error) {
	g, err := shim.Record(d.index, func() error { return Try(f) })
	if err != nil {
		return nil, err
	}
	return &Graph{g}, nil
}

// Replay asks the device to repeat the operations.
func (g *Graph) Replay() error { return g.g.Replay() }

// Close frees the graph. Tensors that were made while it was recorded must not be used
// afterwards.
func (g *Graph) Close() { g.g.Close() }
