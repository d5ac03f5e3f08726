package nn

import (
	"github.com/hcunet/hcunet/checkpoint"
	torch "github.com/wangkuiyi/gotorch"
)

// A StateMean is a weighted mean over time of a module's parameters and buffers.
// Integer tensors, which are counters, are not averaged: their last value is kept.
type StateMean struct {
	names  []string
	values []torch.Tensor // the module's own tensors, floating-point tensors first
	means  []torch.Tensor // the mean of each
	floats int            // number of floating-point tensors, which are averaged
}

// NewStateMean returns a mean that starts with a copy of m's state. It must not outlive
// the Scope in which it was made.
func NewStateMean(m Module) (*StateMean, error) {
	mean := &StateMean{}
	err := Try(func() {
		NoGrad(func() {
			state := State(m)
			for _, floats := range []bool{true, false} {
				for _, n := range state {
					switch DTypeOf(n.Tensor) {
					case Float, Double, Half, BFloat16:
						if !floats {
							continue
						}
						mean.floats++
					default:
						if floats {
							continue
						}
					}
					mean.names = append(mean.names, n.Name)
					mean.values = append(mean.values, n.Tensor)
					mean.means = append(mean.means, call(opClone, Detach(n.Tensor)))
				}
			}
		})
	})
	return mean, err
}

// Add sets the mean to (1-weight)*mean + weight*state, where state is the module's
// state as it is now. weight is in [0, 1]; 1 copies the state.
func (m *StateMean) Add(weight float64) error {
	return Try(func() {
		NoGrad(func() {
			Scope(func() {
				values, means := m.values[:m.floats], m.means[:m.floats]
				if weight == 1 {
					for i := range values {
						run(opCopy, means[i], values[i])
					}
				} else if len(values) > 0 {
					run(opForeachMul_, means, 1-weight)
					run(opForeachAdd_, means, values, weight)
				}
				for i, v := range m.values[m.floats:] {
					run(opCopy, m.means[m.floats+i], v)
				}
			})
		})
	})
}

// Swap exchanges the values of the mean and of the module's state.
func (m *StateMean) Swap() error {
	return Try(func() {
		NoGrad(func() {
			for i, v := range m.values {
				Scope(func() {
					was := call(opClone, v)
					run(opCopy, v, m.means[i])
					run(opCopy, m.means[i], was)
				})
			}
		})
	})
}

// State returns a copy of the mean under the names of the module's tensors.
func (m *StateMean) State() (*checkpoint.File, error) { return SaveState(m) }

// SetState overwrites the mean with f, which State returned before.
func (m *StateMean) SetState(f *checkpoint.File) error { return LoadState(m, f) }

// Walk shows the means under the names of the module's tensors.
func (m *StateMean) Walk(w Walker) {
	for i, name := range m.names {
		w.Buffer(name, m.means[i])
	}
}

func (m *StateMean) String() string { return "StateMean" }
