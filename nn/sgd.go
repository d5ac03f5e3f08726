package nn

import torch "github.com/wangkuiyi/gotorch"

// sgdRule keeps a decaying sum of gradients, the momentum buffer. As in PyTorch, the
// buffer starts with the gradient of the first step with nonzero momentum, and steps
// with momentum 0 do not change it.
var sgdRule = rule{
	state:  []string{"momentum_buffer"},
	counts: func(h Hyper) bool { return h.Momentum != 0 },
	update: updateSGD,
}

func updateSGD(c *OptimizerConfig, h Hyper, steps int64, params, grads []torch.Tensor, state [][]torch.Tensor) {
	if h.Momentum != 0 {
		sums := state[0]
		if steps == 1 {
			run(opForeachAdd_, sums, grads, 1.0) // the sums are zero; no dampening in the first step
		} else {
			run(opForeachMul_, sums, h.Momentum)
			run(opForeachAdd_, sums, grads, 1-c.Dampening)
		}
		if c.Nesterov {
			var err error
			grads, err = opForeachAdd.Call(grads, sums, h.Momentum)
			must(err)
		} else {
			grads = sums
		}
	}
	run(opForeachAdd_, params, grads, -h.Rate)
}
