package nn

import (
	"math"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

var (
	opForeachNorm = shim.NewOp("_foreach_norm.Scalar")
	opStack       = shim.NewOp("stack")
	opNorm2       = shim.NewOp("norm.Scalar")
)

// gradients returns the gradients that exist among params.
func gradients(params []Named) []torch.Tensor {
	grads := make([]torch.Tensor, 0, len(params))
	for _, p := range params {
		if g, ok := Grad(p.Tensor); ok {
			grads = append(grads, g)
		}
	}
	return grads
}

// GradNorm returns the Euclidean norm of all gradients of params taken as one
// vector, 0 if there is none or they are on [Meta].
func GradNorm(params []Named) (norm float64, err error) {
	err = Try(func() {
		Scope(func() { norm = gradNorm(gradients(params)) })
	})
	return norm, err
}

// gradNorm takes one transfer from the device.
func gradNorm(grads []torch.Tensor) float64 {
	if len(grads) == 0 {
		return 0
	}
	norms, err := opForeachNorm.Call(grads, 2.0)
	must(err)
	norm := call(opNorm2, call(opStack, norms), 2.0)
	if DeviceOf(norm) == Meta {
		return 0
	}
	v, err := Item(norm)
	must(err)
	return v
}

// ClipGradNorm scales all gradients of params so that their norm, as GradNorm has
// it, is at most about limit, and returns the norm before.
//
// Source: torch.nn.utils.clip_grad_norm_ of PyTorch 1.13: the factor is
// min(1, limit/(norm+1e-6)).
func ClipGradNorm(params []Named, limit float64) (norm float64, err error) {
	err = Try(func() {
		Scope(func() {
			grads := gradients(params)
			norm = gradNorm(grads)
			if factor := limit / (norm + 1e-6); factor < 1 && !math.IsNaN(norm) {
				NoGrad(func() { run(opForeachMul_, grads, factor) })
			}
		})
	})
	return norm, err
}

// DivGrad divides all gradients of params by n: a number of micro-batches, or the
// factor by which a loss was scaled.
func DivGrad(params []Named, n float64) error {
	return Try(func() {
		Scope(func() {
			if grads := gradients(params); len(grads) > 0 {
				NoGrad(func() { run(opForeachDiv_, grads, n) })
			}
		})
	})
}

var opForeachZero_ = shim.NewOp("_foreach_zero_")

// ZeroGrad sets the gradients of params to zero; those that do not exist stay so.
func ZeroGrad(params []Named) error {
	return Try(func() {
		Scope(func() {
			if grads := gradients(params); len(grads) > 0 {
				NoGrad(func() { run(opForeachZero_, grads) })
			}
		})
	})
}

// DropGrad removes the gradients of params and frees their memory.
func DropGrad(params []Named) error {
	return Try(func() {
		for _, p := range params {
			must(shim.SetGrad(p.Tensor, torch.Tensor{}))
		}
	})
}
