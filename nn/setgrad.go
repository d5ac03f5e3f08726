package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// SetGrad makes g the gradient of t, without a copy. It panics with an *[Error] unless
// g has the shape, element type and device of t. The zero torch.Tensor removes the
// gradient.
func SetGrad(t, g torch.Tensor) { must(shim.SetGrad(t, g)) }

// StateNorm returns the Euclidean norm of all floating-point tensors of ts, taken as
// one vector. It is NaN or infinite if one of their elements is, and also infinite if
// the sum of squares overflows. On [Meta] it is 0.
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
