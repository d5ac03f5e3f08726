package nn

import (
	"math"
	"slices"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// adamRule keeps exponential moving averages of the gradient and of its square.
var adamRule = rule{
	state:  []string{"exp_avg", "exp_avg_sq"},
	counts: func(Hyper) bool { return true },
	update: updateAdam,
}

var opFusedAdam_ = shim.NewOp("_fused_adam_")

func updateAdam(c *OptimizerConfig, h Hyper, steps int64, params, grads []torch.Tensor, state [][]torch.Tensor) {
	means, sqs := state[0], state[1]
	if d := DeviceOf(params[0]); d.CUDA() && c.Epsilon == EpsilonAfter {
		// One kernel for all parameters, where the operators below pass the memory 20 times.
		step := Full(d, Float, float64(steps))
		run(opFusedAdam_, params, grads, means, sqs, []torch.Tensor{}, slices.Repeat([]torch.Tensor{step}, len(params)),
			h.Rate, h.Momentum, c.Beta2, 0.0, c.Eps, false, false)
		return
	}
	correction1 := 1 - math.Pow(h.Momentum, float64(steps))
	correction2 := math.Sqrt(1 - math.Pow(c.Beta2, float64(steps)))
	size := h.Rate / correction1

	run(opForeachMul_, means, h.Momentum)
	run(opForeachAdd_, means, grads, 1-h.Momentum)
	run(opForeachMul_, sqs, c.Beta2)
	run(opForeachAddcmul_, sqs, grads, grads, 1-c.Beta2)
	roots, err := opForeachSqrt.Call(sqs)
	must(err)
	if c.Epsilon == EpsilonBefore {
		size *= correction2
	} else {
		run(opForeachDiv_, roots, correction2)
	}
	run(opForeachAddC_, roots, c.Eps)
	run(opForeachAddcdiv_, params, means, roots, -size)
}
