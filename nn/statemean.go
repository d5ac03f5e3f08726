package nn

import (
	"github.com/hcunet/hcunet/checkpoint"
	torch "github.com/wangkuiyi/gotorch"
)

// A StateMean is a weighted mean of what a module's parameters and buffers have been.
// Counters, which are whole numbers, are not averaged: the last counts.
type StateMean struct {
	names  []string
	values []torch.Tensor // of the module: those of floating point first
	means  []torch.Tensor // the mean of each
	floats int            // how many are averaged
}

// NewStateMean returns a mean of m's state that starts as m is now. Make it outside of
// a Scope that ends before it does.
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

// Add moves the mean by weight towards the module's state as it is now; a weight
// of 1 copies it.
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

// Swap exchanges the mean and the module's state.
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

// SetState overwrites the mean with what State returned.
func (m *StateMean) SetState(f *checkpoint.File) error { return LoadState(m, f) }

// Walk shows the means under the names of the module's tensors.
func (m *StateMean) Walk(w Walker) {
	for i, name := range m.names {
		w.Buffer(name, m.means[i])
	}
}

func (m *StateMean) String() string { return "StateMean" }
