package nn

import (
	"math"
	"slices"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

var (
	opForeachNorm = shim.NewOp("_foreach_norm.Scalar")
	opStack       = shim.NewOp("stack")
	opNorm2       = shim.NewOp("norm.Scalar")
)

// gradients returns the gradients of those params that have one.
func gradients(params []Named) []torch.Tensor {
	grads := make([]torch.Tensor, 0, len(params))
	for _, p := range params {
		if g, ok := Grad(p.Tensor); ok {
			grads = append(grads, g)
		}
	}
	return grads
}

// GradNorm returns the Euclidean norm of all gradients of params, taken as one vector.
// It is 0 if no parameter has a gradient, and on [Meta].
func GradNorm(params []Named) (norm float64, err error) {
	err = Try(func() {
		Scope(func() { norm = gradNorm(gradients(params)) })
	})
	return norm, err
}

// normOf returns the norm of at least one gradient as a tensor of one element.
func normOf(grads []torch.Tensor) torch.Tensor {
	norms, err := opForeachNorm.Call(grads, 2.0)
	must(err)
	return call(opNorm2, call(opStack, norms), 2.0)
}

// gradNorm needs only one transfer from the device to the CPU.
func gradNorm(grads []torch.Tensor) float64 {
	if len(grads) == 0 {
		return 0
	}
	norm := normOf(grads)
	if DeviceOf(norm) == Meta {
		return 0
	}
	v, err := Item(norm)
	must(err)
	return v
}

// ClipGradNorm multiplies all gradients of params by min(1, limit/(norm+1e-6)), where
// norm is their GradNorm, and returns this norm. Gradients whose norm is NaN stay as
// they are.
//
// Source: torch.nn.utils.clip_grad_norm_ of PyTorch 1.13.
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

// mulAll multiplies tensors by a factor on their device.
func mulAll(ts []torch.Tensor, factor torch.Tensor) {
	if DeviceOf(factor).CUDA() {
		run(opForeachMulTensor_, ts, factor) // some launches for all; libtorch 1.13 does not have it
	} else {
		run(opForeachMulList_, ts, slices.Repeat([]torch.Tensor{factor}, len(ts)))
	}
}

var (
	opForeachMulTensor_ = shim.NewOp("_foreach_mul_.Tensor")
	opForeachMulList_   = shim.NewOp("_foreach_mul_.List")
	opClampMax          = shim.NewOp("clamp_max")
	opReciprocal        = shim.NewOp("reciprocal")
)

// ClipGrad is ClipGradNorm without reading anything from the device: it returns the norm
// as a tensor of one element. A limit of 0 only measures. At least one of params has a
// gradient.
func ClipGrad(params []Named, limit float64) (norm torch.Tensor) {
	return Result(func() torch.Tensor {
		grads := gradients(params)
		NoGrad(func() {
			norm = normOf(grads)
			if limit > 0 {
				factor := MulScalar(call(opReciprocal, AddScalar(norm, 1e-6)), limit)
				mulAll(grads, call(opClampMax, factor, 1))
			}
		})
		return norm
	})
}

// DivGrad divides all gradients of params by n, for example by the number of
// micro-batches or by the factor of loss scaling.
func DivGrad(params []Named, n float64) error {
	return Try(func() {
		Scope(func() {
			if grads := gradients(params); len(grads) > 0 {
				NoGrad(func() { run(opForeachDiv_, grads, n) })
			}
		})
	})
}

// AddGrad adds grads, in the order of params, to the gradients of params. A parameter
// without a gradient gets a copy. Where grads has the zero torch.Tensor nothing changes.
func AddGrad(params []Named, grads []torch.Tensor) error {
	return Try(func() {
		NoGrad(func() {
			Scope(func() {
				var sums, more []torch.Tensor
				for i, g := range grads {
					if g.T == nil {
						continue
					}
					if sum, ok := Grad(params[i].Tensor); ok {
						sums, more = append(sums, sum), append(more, g)
					} else {
						SetGrad(params[i].Tensor, call(opClone, g))
					}
				}
				if len(sums) > 0 {
					run(opForeachAdd_, sums, more, 1.0)
				}
			})
		})
	})
}

var opForeachZero_ = shim.NewOp("_foreach_zero_")

// ZeroGrad sets the gradients of params to zero. A parameter without a gradient stays
// without one.
func ZeroGrad(params []Named) error {
	return Try(func() {
		Scope(func() {
			if grads := gradients(params); len(grads) > 0 {
				NoGrad(func() { run(opForeachZero_, grads) })
			}
		})
	})
}

// DropGrad removes the gradients of params, so that their memory can be freed.
func DropGrad(params []Named) error {
	return Try(func() {
		for _, p := range params {
			must(shim.SetGrad(p.Tensor, torch.Tensor{}))
		}
	})
}
