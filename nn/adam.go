package nn

import (
	"fmt"
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

func updateAdam(c *OptimizerConfig, h Hyper, steps int64, params, grads []torch.Tensor, state [][]torch.Tensor) {
	means, sqs := state[0], state[1]
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

// fuses reports whether CUDA has the step of o's kind as one kernel for all parameters. The
// operators of updateAdam pass the memory 20 times.
func (o *optimizer) fuses(param torch.Tensor) bool {
	return o.config.Kind == Adam && o.config.Epsilon == EpsilonAfter && DeviceOf(param).CUDA()
}

var (
	opFusedAdam_  = shim.NewOp("_fused_adam_")
	opFusedAdamW_ = shim.NewOp("_fused_adamw_")
)

// fusedAdam is the whole step of Adam, with its decay, unless skip, if there is one, is 1.
func (o *optimizer) fusedAdam(h Hyper, steps int64, params, grads []torch.Tensor, state [][]torch.Tensor, skip torch.Tensor) {
	op := opFusedAdamW_
	if o.config.Decay == DecayL2 {
		op = opFusedAdam_
	}
	step := Full(DeviceOf(params[0]), Float, float64(steps))
	run(op, params, grads, state[0], state[1], []torch.Tensor{}, slices.Repeat([]torch.Tensor{step}, len(params)),
		h.Rate, h.Momentum, o.config.Beta2, h.WeightDecay, o.config.Eps, false, false, shim.None{}, skip)
}

// adamOnCPU makes the whole step of Adam in one pass over the memory; it returns false, and
// does nothing, if it cannot.
func (o *optimizer) adamOnCPU(h Hyper, steps int64, params, grads []torch.Tensor, state [][]torch.Tensor) bool {
	c := &o.config
	if c.Kind != Adam || DeviceOf(params[0]) != CPU {
		return false
	}
	root := math.Sqrt(1 - math.Pow(c.Beta2, float64(steps)))
	a := shim.Adam{Beta1: h.Momentum, Beta2: c.Beta2, Size: h.Rate / (1 - math.Pow(h.Momentum, float64(steps))), Root: root, Eps: c.Eps, Keep: 1}
	if c.Epsilon == EpsilonBefore {
		a.Eps /= root // (sqrt(v) + eps) / root
	}
	if c.Decay == DecayL2 {
		a.L2 = h.WeightDecay
	} else {
		a.Keep = 1 - h.WeightDecay*h.Rate
	}
	done, err := a.Step(params, grads, state[0], state[1])
	must(err)
	return done
}

// CanSkip implements [Skipper].
func (o *optimizer) CanSkip() bool {
	for _, g := range o.groups {
		for _, s := range g {
			return o.fuses(s.param)
		}
	}
	return false
}

// StepUnless implements [Skipper].
func (o *optimizer) StepUnless(skip torch.Tensor, hyper []Hyper) error {
	if !o.CanSkip() {
		return fmt.Errorf("nn: %v cannot skip steps; adam on CUDA can", o)
	}
	return o.step(hyper, skip)
}
