package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// SetGrad makes g the gradient of t.
func SetGrad(t, g torch.Tensor) { must(shim.SetGrad(t, g)) }

// StateNorm returns the Euclidean norm of all tensors of floating point among ts taken
// as one vector: a number exactly if all their elements are, short of overflow.
func StateNorm(ts []Named) (norm float64, err error) {
	err = Try(func() {
		NoGrad(func() {
			Scope(func() {
				var floats []torch.Tensor
				for _, t := range ts {
					switch DTypeOf(t.Tensor) {
					case Float, Double, Half, BFloat16:
						floats = append(floats, t.Tensor)
					}
				}
				norm = gradNorm(floats)
			})
		})
	})
	return norm, err
}
