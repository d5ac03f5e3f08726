package nn

import (
	"fmt"
	"math"
	"strings"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// An Epsilon is where Adam adds its epsilon.
type Epsilon int

const (
	// EpsilonAfter adds it to the bias-corrected root: PyTorch 1.3 and later, and
	// the paper.
	EpsilonAfter Epsilon = iota
	// EpsilonBefore adds it to the root before the bias correction: PyTorch 1.1,
	// on which the notebook ran.
	EpsilonBefore
)

// Hyper are the values in force for one step of a group of parameters.
type Hyper struct {
	Rate        float64 // learning rate
	Beta1       float64 // decay of the mean gradient, the one-cycle policy's momentum
	WeightDecay float64 // parameters shrink by 1 - Rate*WeightDecay first; see AdamOptions.L2
}

// Adam is the optimizer of Kingma and Ba 2014, https://arxiv.org/abs/1412.6980,
// with the decoupled weight decay of Loshchilov and Hutter 2017,
// https://arxiv.org/abs/1711.05101, over groups of parameters that each have
// their own Hyper at each step.
type Adam struct {
	opt    AdamOptions
	groups [][]adamState
}

type adamState struct {
	name     string
	param    torch.Tensor
	mean, sq torch.Tensor // decaying averages of the gradient and its square
	steps    int
}

// AdamOptions are what Adam may have beside its parameters.
type AdamOptions struct {
	Beta2   float64 // 0 means 0.99, fastai's
	Eps     float64 // 0 means 1e-8
	Epsilon Epsilon
	L2      bool // add WeightDecay*parameter to the gradient instead of shrinking

	// DecayFrozenBias shrinks biases that are frozen, too, as fastai 1.0.54 does:
	// its list of parameters "without" weight decay is decayed by default, and
	// holds the biases whether they are trained or not.
	DecayFrozenBias bool
}

// NewAdam returns an optimizer of groups of parameters, with its averages at
// zero. opt may be nil. Make it outside of a Scope.
func NewAdam(groups [][]Named, opt *AdamOptions) (*Adam, error) {
	o := AdamOptions{}
	if opt != nil {
		o = *opt
	}
	if o.Beta2 == 0 {
		o.Beta2 = 0.99
	}
	if o.Eps == 0 {
		o.Eps = 1e-8
	}
	a := &Adam{opt: o}
	err := Try(func() {
		for _, g := range groups {
			states := make([]adamState, len(g))
			for i, p := range g {
				states[i] = adamState{name: p.Name, param: p.Tensor, mean: call(opZerosLike, p.Tensor), sq: call(opZerosLike, p.Tensor)}
			}
			a.groups = append(a.groups, states)
		}
	})
	return a, err
}

var (
	opMulScalar_      = shim.NewOp("mul_.Scalar")
	opZerosLike       = shim.NewOp("zeros_like")
	opForeachMul_     = shim.NewOp("_foreach_mul_.Scalar")
	opForeachDiv_     = shim.NewOp("_foreach_div_.Scalar")
	opForeachAdd      = shim.NewOp("_foreach_add.List")
	opForeachAdd_     = shim.NewOp("_foreach_add_.List")
	opForeachAddC_    = shim.NewOp("_foreach_add_.Scalar")
	opForeachAddcmul_ = shim.NewOp("_foreach_addcmul_.Scalar")
	opForeachAddcdiv_ = shim.NewOp("_foreach_addcdiv_.Scalar")
	opForeachSqrt     = shim.NewOp("_foreach_sqrt")
)

// Step moves the parameters of each group by its gradient, with that group's
// values. A parameter without a gradient, or that is frozen, stays.
func (a *Adam) Step(hyper []Hyper) error {
	if len(hyper) != len(a.groups) {
		return fmt.Errorf("nn: Adam.Step: %d groups of values for %d groups of parameters", len(hyper), len(a.groups))
	}
	return Try(func() {
		NoGrad(func() {
			Scope(func() {
				for i, g := range a.groups {
					a.stepGroup(g, hyper[i])
				}
			})
		})
	})
}

func (a *Adam) stepGroup(group []adamState, h Hyper) {
	// Parameters of one group may have taken different numbers of steps, if one
	// of them had no gradient at some time.
	bySteps := map[int][]*adamState{}
	for i := range group {
		s := &group[i]
		if !RequiresGrad(s.param) {
			if a.opt.DecayFrozenBias && strings.HasSuffix(s.name, ".bias") {
				run(opMulScalar_, s.param, 1-h.WeightDecay*h.Rate)
			}
			continue
		}
		if _, ok := Grad(s.param); !ok {
			continue
		}
		s.steps++
		bySteps[s.steps] = append(bySteps[s.steps], s)
	}
	for steps, states := range bySteps {
		a.update(steps, states, h)
	}
}

func (a *Adam) update(steps int, states []*adamState, h Hyper) {
	n := len(states)
	params, grads := make([]torch.Tensor, n), make([]torch.Tensor, n)
	means, sqs := make([]torch.Tensor, n), make([]torch.Tensor, n)
	for i, s := range states {
		params[i], means[i], sqs[i] = s.param, s.mean, s.sq
		grads[i], _ = Grad(s.param)
	}
	correction1 := 1 - math.Pow(h.Beta1, float64(steps))
	correction2 := math.Sqrt(1 - math.Pow(a.opt.Beta2, float64(steps)))
	size := h.Rate / correction1

	switch {
	case h.WeightDecay == 0:
	case a.opt.L2:
		var err error
		grads, err = opForeachAdd.Call(grads, params, h.WeightDecay)
		must(err)
	default:
		run(opForeachMul_, params, 1-h.WeightDecay*h.Rate)
	}
	run(opForeachMul_, means, h.Beta1)
	run(opForeachAdd_, means, grads, 1-h.Beta1)
	run(opForeachMul_, sqs, a.opt.Beta2)
	run(opForeachAddcmul_, sqs, grads, grads, 1-a.opt.Beta2)
	roots, err := opForeachSqrt.Call(sqs)
	must(err)
	if a.opt.Epsilon == EpsilonBefore {
		size *= correction2
	} else {
		run(opForeachDiv_, roots, correction2)
	}
	run(opForeachAddC_, roots, a.opt.Eps)
	run(opForeachAddcdiv_, params, means, roots, -size)
}
