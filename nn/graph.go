package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// A Graph is a sequence of operations that was recorded on a CUDA device. Replay repeats
// them on the same memory: one call takes microseconds, where thousands of single operations
// may take longer to ask for than to do. On other devices nothing is recorded, and Replay
// asks for each operation again; that is no faster, and lets tests run without a GPU.
type Graph struct {
	f       func() []torch.Tensor
	g       *shim.Graph // nil if nothing was recorded
	results []torch.Tensor
}

// CanRecord returns nil if this program can record graphs, and otherwise why it cannot: it
// was built without CUDA's headers.
func CanRecord() error { return shim.NoGraphs() }

// Record records the operations of f, backward passes included, and does not do them. f must
// do the same operations every time: it must not read a value from the device, and every
// shape must have been computed before, outside of a recording. All tensors that f makes are
// freed at its end, but for its results, which may include zero torch.Tensors.
func Record(d Device, f func() []torch.Tensor) (*Graph, error) {
	g := &Graph{f: f}
	if !d.CUDA() {
		return g, nil
	}
	var err error
	g.g, err = shim.Record(d.index, func() error { return Try(func() { g.results = g.ask() }) })
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Replay asks the device to repeat the operations and returns the results of f. On CUDA they
// are the same tensors at each call, which the next call overwrites. They belong to the scope
// around Record there, and to that around Replay on other devices.
func (g *Graph) Replay() (results []torch.Tensor, err error) {
	if g.g == nil {
		err = Try(func() { results = g.ask() })
		return results, err
	}
	return g.results, g.g.Replay()
}

func (g *Graph) ask() (results []torch.Tensor) {
	Scope(func() {
		results = g.f()
		Keep(results...)
	})
	return results
}

// Close frees what was recorded. The results must not be used afterwards.
func (g *Graph) Close() {
	if g.g != nil {
		g.g.Close()
	}
}
