package nn

import (
	"fmt"
	"strings"

	torch "github.com/wangkuiyi/gotorch"
)

// A Module is a network or a part of one. Walk shows its own tensors and its parts
// to a [Walker], in the order and under the names of PyTorch's state dict.
//
// String returns what PyTorch prints for the module: only the type if it has parts
// ("UnetBlock"), the type and the settings if it has none ("ReLU(inplace)").
type Module interface {
	fmt.Stringer
	Walk(w Walker)
}

// A Walker receives the tensors and parts of a module: first the parameters, then the
// buffers, then the parts.
type Walker interface {
	Param(name string, t torch.Tensor)
	Buffer(name string, t torch.Tensor)
	Child(name string, m Module)
}

// A Named is one tensor of a module's state.
type Named struct {
	Name   string // such as "layers.0.4.0.conv1.weight"
	Tensor torch.Tensor
	Buffer bool   // a tensor that is not trained, such as a running mean
	Owner  Module // the layer that the tensor belongs to
}

// State returns all parameters and buffers of m and of its parts, in the order of
// PyTorch's state dict. The tensors are m's own, not copies.
func State(m Module) []Named {
	w := &stateWalker{owner: m}
	m.Walk(w)
	return w.state
}

// Parameters returns the parameters of m and of its parts, in the order of State;
// frozen parameters are among them.
func Parameters(m Module) []Named {
	var ps []Named
	for _, n := range State(m) {
		if !n.Buffer {
			ps = append(ps, n)
		}
	}
	return ps
}

type stateWalker struct {
	prefix string
	owner  Module
	state  []Named
}

func (w *stateWalker) Param(name string, t torch.Tensor) {
	w.state = append(w.state, Named{w.prefix + name, t, false, w.owner})
}

func (w *stateWalker) Buffer(name string, t torch.Tensor) {
	w.state = append(w.state, Named{w.prefix + name, t, true, w.owner})
}

func (w *stateWalker) Child(name string, m Module) {
	sub := &stateWalker{w.prefix + name + ".", m, w.state}
	m.Walk(sub)
	w.state = sub.state
}

// Each calls f with m and every part of m; a module comes before its parts.
func Each(m Module, f func(Module)) {
	f(m)
	m.Walk(eachWalker(f))
}

type eachWalker func(Module)

func (eachWalker) Param(string, torch.Tensor)     {}
func (eachWalker) Buffer(string, torch.Tensor)    {}
func (f eachWalker) Child(_ string, child Module) { Each(child, f) }

// SetBatchNormMomentum sets the momentum of every BatchNorm2d in m: the weight, in
// [0, 1], of a new batch in the running statistics.
func SetBatchNormMomentum(m Module, momentum float64) {
	Each(m, func(m Module) {
		if bn, ok := m.(*BatchNorm2d); ok {
			bn.Momentum = momentum
		}
	})
}

// Summary returns the tree of m's parts as PyTorch 1.1 prints it.
func Summary(m Module) string {
	p := &printWalker{}
	m.Walk(p)
	if len(p.lines) == 0 {
		return m.String()
	}
	var b strings.Builder
	b.WriteString(m.String() + "(\n")
	for _, line := range p.lines {
		b.WriteString("  " + strings.ReplaceAll(line, "\n", "\n  ") + "\n")
	}
	b.WriteString(")")
	return b.String()
}

type printWalker struct{ lines []string }

func (*printWalker) Param(string, torch.Tensor)  {}
func (*printWalker) Buffer(string, torch.Tensor) {}
func (p *printWalker) Child(name string, m Module) {
	p.lines = append(p.lines, fmt.Sprintf("(%s): %s", name, Summary(m)))
}
