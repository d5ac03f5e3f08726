package nn

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/hcunet/hcunet/internal/strict"
	"github.com/hcunet/hcunet/internal/words"
	torch "github.com/wangkuiyi/gotorch"
)

// An Optimizer updates groups of parameters by their gradients. [OptimizerConfig.New]
// makes one.
type Optimizer interface {
	// Step updates the parameters of each group; hyper has one element for each group.
	// A parameter that is frozen or has no gradient is not changed, and the step does
	// not count for it; see OptimizerConfig.DecayFrozenBias for the exception.
	Step(hyper []Hyper) error

	// State returns a copy of the optimizer's state: for each parameter the number of
	// steps and Adam's moving averages or SGD's momentum buffer. An optimizer with the
	// same configuration and parameters that loads this state makes exactly the same
	// steps.
	State() (*checkpoint.File, error)

	// LoadState replaces the optimizer's state by a copy of state. If state belongs to
	// another optimizer or to other parameters, LoadState changes nothing and returns
	// one error that lists the differences.
	LoadState(state *checkpoint.File) error

	// String returns the kind and the settings: "adam(beta2=0.99, eps=1e-08)".
	String() string
}

// A Skipper is an optimizer that can be told on the device to leave out a step: the program
// need not wait for the gradients to know whether they are finite.
type Skipper interface {
	Optimizer
	// CanSkip returns whether StepUnless works for its parameters.
	CanSkip() bool
	// StepUnless is Step, but changes no parameter if skip, a float32 tensor of one
	// element on the device of the parameters, is 1; the step still counts.
	StepUnless(skip torch.Tensor, hyper []Hyper) error
}

// Hyper holds the hyperparameters of one step for one group of parameters.
type Hyper struct {
	Rate        float64 // learning rate
	Momentum    float64 // Adam's beta1, SGD's momentum
	WeightDecay float64 // see Decay
}

// OptimizerKind is the update rule of an optimizer.
type OptimizerKind int

// The optimizers.
const (
	// Adam is the optimizer of Kingma and Ba 2014, https://arxiv.org/abs/1412.6980.
	Adam OptimizerKind = iota
	// SGD is gradient descent with momentum, as in torch.optim.SGD of PyTorch 1.13.
	SGD
)

// Epsilon says at which point Adam adds its eps.
type Epsilon int

const (
	// EpsilonAfter adds eps to the square root after its bias correction, as the paper
	// and PyTorch 1.3 and later do.
	EpsilonAfter Epsilon = iota
	// EpsilonBefore adds eps to the square root before its bias correction, as PyTorch
	// 1.1 does, on which the notebook ran.
	EpsilonBefore
)

// Decay is the kind of weight decay.
type Decay int

const (
	// DecayDecoupled multiplies the parameters by 1 - Rate*WeightDecay before the
	// update: Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101.
	DecayDecoupled Decay = iota
	// DecayL2 adds WeightDecay times the parameter to its gradient.
	DecayL2
)

var (
	kindWords    = words.Choice[OptimizerKind]{What: "nn: optimizer", Words: []string{"adam", "sgd"}}
	epsilonWords = words.Choice[Epsilon]{What: "nn: epsilon", Words: []string{"after", "before"}}
	decayWords   = words.Choice[Decay]{What: "nn: decay", Words: []string{"decoupled", "l2"}}
)

// MarshalText implements encoding.TextMarshaler: "adam" or "sgd".
func (k OptimizerKind) MarshalText() ([]byte, error) { return kindWords.Marshal(k) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *OptimizerKind) UnmarshalText(b []byte) (err error) { *k, err = kindWords.Parse(b); return err }

// MarshalText implements encoding.TextMarshaler: "after" or "before".
func (e Epsilon) MarshalText() ([]byte, error) { return epsilonWords.Marshal(e) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Epsilon) UnmarshalText(b []byte) (err error) { *e, err = epsilonWords.Parse(b); return err }

// MarshalText implements encoding.TextMarshaler: "decoupled" or "l2".
func (d Decay) MarshalText() ([]byte, error) { return decayWords.Marshal(d) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Decay) UnmarshalText(b []byte) (err error) { *d, err = decayWords.Parse(b); return err }

// OptimizerConfig describes an optimizer. Learning rate, momentum and weight decay are
// not part of it, because a schedule may change them: they are arguments of each step.
// In JSON it has only the fields of its kind; reading it back gives an equal value.
type OptimizerConfig struct {
	Kind OptimizerKind

	// For Adam only.
	Beta2   float64 // in [0, 1): decay of the moving average of the squared gradient
	Eps     float64 // above 0
	Epsilon Epsilon

	// For SGD only.
	Nesterov  bool    // Nesterov momentum; requires Dampening 0
	Dampening float64 // in [0, 1]: the momentum buffer adds 1 - Dampening times the gradient

	// For both.
	Decay Decay
	// DecayFrozenBias applies weight decay also to frozen parameters whose name ends in
	// ".bias": Step multiplies them by 1 - Rate*WeightDecay. fastai 1.0.54 does this: its
	// group for parameters "without" weight decay holds the biases whether they are
	// frozen or not, and by default is decayed all the same.
	DecayFrozenBias bool
}

// DefaultAdam returns AdamW with fastai's beta2 of 0.99 and an eps of 1e-8.
func DefaultAdam() OptimizerConfig { return OptimizerConfig{Kind: Adam, Beta2: 0.99, Eps: 1e-8} }

// KernelAdam returns the notebook's Adam: fastai 1.0.54 on PyTorch 1.1.
func KernelAdam() OptimizerConfig {
	c := DefaultAdam()
	c.Epsilon = EpsilonBefore
	c.DecayFrozenBias = true
	return c
}

// DefaultSGD returns the defaults of torch.optim.SGD: L2 decay, no Nesterov momentum, no
// dampening.
func DefaultSGD() OptimizerConfig { return OptimizerConfig{Kind: SGD, Decay: DecayL2} }

// Check returns an error if a field has a value that it cannot have or that belongs to
// the other kind.
func (c OptimizerConfig) Check() error {
	for _, choice := range []interface{ MarshalText() ([]byte, error) }{c.Kind, c.Epsilon, c.Decay} {
		if _, err := choice.MarshalText(); err != nil {
			return err
		}
	}
	switch {
	case c.Kind == Adam && !(c.Beta2 >= 0 && c.Beta2 < 1):
		return fmt.Errorf("nn: adam with beta2 %v, wanted at least 0 and less than 1, such as 0.99", c.Beta2)
	case c.Kind == Adam && (!(c.Eps > 0) || math.IsInf(c.Eps, 0)):
		return fmt.Errorf("nn: adam with eps %v, wanted more than 0, such as 1e-8", c.Eps)
	case c.Kind == Adam && (c.Nesterov || c.Dampening != 0):
		return errors.New("nn: adam with nesterov or dampening, which are sgd's")
	case c.Kind == SGD && (c.Beta2 != 0 || c.Eps != 0 || c.Epsilon != 0):
		return errors.New("nn: sgd with beta2, eps or epsilon, which are adam's")
	case !(c.Dampening >= 0 && c.Dampening <= 1):
		return fmt.Errorf("nn: sgd with dampening %v, wanted 0 to 1", c.Dampening)
	case c.Nesterov && c.Dampening != 0:
		return fmt.Errorf("nn: sgd with nesterov and dampening %v, wanted dampening 0", c.Dampening)
	}
	return nil
}

// String returns the kind and the settings: "adam(beta2=0.99, eps=1e-08)".
func (c OptimizerConfig) String() string {
	var parts []string
	add := func(on bool, format string, args ...any) {
		if on {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(c.Kind == Adam, "beta2=%v, eps=%v", c.Beta2, c.Eps)
	add(c.Epsilon == EpsilonBefore, "epsilon=before")
	add(c.Nesterov, "nesterov")
	add(c.Dampening != 0, "dampening=%v", c.Dampening)
	add(c.Decay == DecayL2, "decay=l2")
	add(c.DecayFrozenBias, "decay_frozen_bias")
	kind, err := c.Kind.MarshalText()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s(%s)", kind, strings.Join(parts, ", "))
}

// The JSON form of each kind.
type (
	adamJSON struct {
		Kind            OptimizerKind `json:"kind"`
		Beta2           float64       `json:"beta2"`
		Eps             float64       `json:"eps"`
		Epsilon         Epsilon       `json:"epsilon"`
		Decay           Decay         `json:"decay"`
		DecayFrozenBias bool          `json:"decay_frozen_bias"`
	}
	sgdJSON struct {
		Kind            OptimizerKind `json:"kind"`
		Nesterov        bool          `json:"nesterov"`
		Dampening       float64       `json:"dampening"`
		Decay           Decay         `json:"decay"`
		DecayFrozenBias bool          `json:"decay_frozen_bias"`
	}
)

func (c OptimizerConfig) adam() adamJSON {
	return adamJSON{c.Kind, c.Beta2, c.Eps, c.Epsilon, c.Decay, c.DecayFrozenBias}
}

func (c OptimizerConfig) sgd() sgdJSON {
	return sgdJSON{c.Kind, c.Nesterov, c.Dampening, c.Decay, c.DecayFrozenBias}
}

// MarshalJSON implements json.Marshaler. It returns the error of
// [OptimizerConfig.Check].
func (c OptimizerConfig) MarshalJSON() ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Kind == SGD {
		return json.Marshal(c.sgd())
	}
	return json.Marshal(c.adam())
}

// UnmarshalJSON implements json.Unmarshaler. A missing kind is adam; any other missing
// field takes its value from DefaultAdam or DefaultSGD. An unknown field, or a field of
// the other kind, is an error that lists the known fields.
func (c *OptimizerConfig) UnmarshalJSON(b []byte) error {
	var v struct {
		Kind OptimizerKind `json:"kind"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	var read OptimizerConfig
	if v.Kind == SGD {
		s := DefaultSGD().sgd()
		if err := strict.Unmarshal("nn: sgd", b, &s); err != nil {
			return err
		}
		read = OptimizerConfig{Kind: SGD, Nesterov: s.Nesterov, Dampening: s.Dampening, Decay: s.Decay, DecayFrozenBias: s.DecayFrozenBias}
	} else {
		a := DefaultAdam().adam()
		if err := strict.Unmarshal("nn: adam", b, &a); err != nil {
			return err
		}
		read = OptimizerConfig{Kind: Adam, Beta2: a.Beta2, Eps: a.Eps, Epsilon: a.Epsilon, Decay: a.Decay, DecayFrozenBias: a.DecayFrozenBias}
	}
	if err := read.Check(); err != nil {
		return err
	}
	*c = read
	return nil
}

// New returns an optimizer of groups of parameters that has made no step yet. Each
// parameter must have its own name. Call New outside of any Scope, because the scope
// would free the optimizer's state.
func (c OptimizerConfig) New(groups [][]Named) (Optimizer, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	o := &optimizer{config: c, rule: adamRule}
	if c.Kind == SGD {
		o.rule = sgdRule
	}
	names := map[string]bool{}
	err := Try(func() {
		for _, g := range groups {
			slots := make([]*slot, len(g))
			for i, p := range g {
				if names[p.Name] {
					panic(&Error{Msg: fmt.Sprintf("nn: an optimizer of two parameters called %q", p.Name)})
				}
				names[p.Name] = true
				slots[i] = &slot{name: p.Name, param: p.Tensor}
				for range o.rule.state {
					slots[i].state = append(slots[i].state, call(opZerosLike, p.Tensor))
				}
			}
			o.groups = append(o.groups, slots)
		}
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// A rule is the part of an optimizer that depends on its kind.
type rule struct {
	state  []string           // PyTorch's names of the tensors that are kept for each parameter
	counts func(h Hyper) bool // whether a step with these hyperparameters counts
	// update changes params by grads. All params have made the same number of counted
	// steps, this one included. state[i] holds, for each parameter, the tensor that
	// rule.state[i] names.
	update func(c *OptimizerConfig, h Hyper, steps int64, params, grads []torch.Tensor, state [][]torch.Tensor)
}

// A slot is a parameter and its part of the optimizer's state.
type slot struct {
	name  string
	param torch.Tensor
	state []torch.Tensor // zeros until the first step
	steps int64
}

type optimizer struct {
	config OptimizerConfig
	rule   rule
	groups [][]*slot
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

func (o *optimizer) String() string { return o.config.String() }

func (o *optimizer) Step(hyper []Hyper) error { return o.step(hyper, torch.Tensor{}) }

func (o *optimizer) step(hyper []Hyper, skip torch.Tensor) error {
	if len(hyper) != len(o.groups) {
		return fmt.Errorf("nn: Step: %d groups of values for %d groups of parameters", len(hyper), len(o.groups))
	}
	return Try(func() {
		NoGrad(func() {
			Scope(func() {
				for i, g := range o.groups {
					o.stepGroup(g, hyper[i], skip)
				}
			})
		})
	})
}

func (o *optimizer) stepGroup(group []*slot, h Hyper, skip torch.Tensor) {
	// Parameters of one group may have made different numbers of steps, because a step
	// does not count for a parameter without a gradient.
	bySteps := map[int64][]*slot{}
	for _, s := range group {
		if !RequiresGrad(s.param) {
			if o.config.DecayFrozenBias && strings.HasSuffix(s.name, ".bias") {
				run(opMulScalar_, s.param, 1-h.WeightDecay*h.Rate)
			}
			continue
		}
		if _, ok := Grad(s.param); !ok {
			continue
		}
		if o.rule.counts(h) {
			s.steps++
		}
		bySteps[s.steps] = append(bySteps[s.steps], s)
	}
	for _, steps := range slices.Sorted(maps.Keys(bySteps)) {
		o.update(bySteps[steps], steps, h, skip)
	}
}

func (o *optimizer) update(slots []*slot, steps int64, h Hyper, skip torch.Tensor) {
	n := len(slots)
	params, grads := make([]torch.Tensor, n), make([]torch.Tensor, n)
	state := make([][]torch.Tensor, len(o.rule.state))
	for i, s := range slots {
		params[i] = s.param
		grads[i], _ = Grad(s.param)
		for j, t := range s.state {
			state[j] = append(state[j], t)
		}
	}
	switch {
	case o.fuses(params[0]):
		o.fusedAdam(h, steps, params, grads, state, skip)
		return
	case o.adamOnCPU(h, steps, params, grads, state):
		return
	case h.WeightDecay == 0:
	case o.config.Decay == DecayL2:
		var err error
		grads, err = opForeachAdd.Call(grads, params, h.WeightDecay)
		must(err)
	default:
		run(opForeachMul_, params, 1-h.WeightDecay*h.Rate)
	}
	o.rule.update(&o.config, h, steps, params, grads, state)
}

// key returns the name of a tensor of the state, such as "adam.exp_avg.layers.0.weight",
// or "adam.step.layers.0.weight" for the number of steps.
func (o *optimizer) key(what string, s *slot) string {
	return kindWords.Word(o.config.Kind) + "." + what + "." + s.name
}

const stepKey = "step"

func (o *optimizer) State() (*checkpoint.File, error) {
	f := &checkpoint.File{}
	for _, g := range o.groups {
		for _, s := range g {
			f.Tensors = append(f.Tensors, checkpoint.FromInt64(o.key(stepKey, s), []int64{s.steps}))
			for i, what := range o.rule.state {
				t, err := toCheckpoint(o.key(what, s), s.state[i])
				if err != nil {
					return nil, err
				}
				f.Tensors = append(f.Tensors, t)
			}
		}
	}
	return f, nil
}

func (o *optimizer) LoadState(state *checkpoint.File) error {
	have := make(map[string]checkpoint.Tensor, len(state.Tensors))
	kind := kindWords.Word(o.config.Kind)
	for _, t := range state.Tensors {
		if k, _, _ := strings.Cut(t.Name, "."); k != kind && slices.Contains(kindWords.Words, k) {
			return fmt.Errorf("nn: a state of %s for an optimizer of %s", k, kind)
		}
		have[t.Name] = t
	}
	if err := o.fits(have); err != nil {
		return err
	}
	var l stateLoader
	return Try(func() {
		for _, g := range o.groups {
			for _, s := range g {
				s.steps = stepsOf(have[o.key(stepKey, s)])
				for i, what := range o.rule.state {
					l.copyInto(s.state[i], have[o.key(what, s)])
				}
			}
		}
	})
}

// fits returns an error that lists every difference between a state and o's own.
func (o *optimizer) fits(have map[string]checkpoint.Tensor) error {
	wanted, err := o.State()
	if err != nil {
		return err
	}
	var missing, extra, wrong []string
	known := make(map[string]bool, len(wanted.Tensors))
	for _, w := range wanted.Tensors {
		known[w.Name] = true
		t, ok := have[w.Name]
		switch {
		case !ok:
			missing = append(missing, w.Name)
		case t.DType != w.DType || !slices.Equal(t.Shape, w.Shape) || len(t.Data) != len(w.Data):
			wrong = append(wrong, fmt.Sprintf("%s is %s %v in %d bytes, wanted %s %v in %d",
				w.Name, t.DType, t.Shape, len(t.Data), w.DType, w.Shape, len(w.Data)))
		case strings.HasPrefix(w.Name, o.key(stepKey, &slot{})) && stepsOf(t) < 0:
			wrong = append(wrong, fmt.Sprintf("%s is %d", w.Name, stepsOf(t)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if !known[name] {
			extra = append(extra, name)
		}
	}
	var b strings.Builder
	for _, part := range []struct {
		what  string
		names []string
	}{{"missing", missing}, {"extra", extra}, {"wrong", wrong}} {
		if len(part.names) > 0 {
			fmt.Fprintf(&b, "\n%d %s: %s", len(part.names), part.what, strings.Join(part.names, ", "))
		}
	}
	if b.Len() > 0 {
		return fmt.Errorf("nn: the state does not fit the optimizer %v:%s", o, &b)
	}
	return nil
}

// stepsOf returns the number of steps in t, a tensor of one int64.
func stepsOf(t checkpoint.Tensor) int64 { return int64(binary.LittleEndian.Uint64(t.Data)) }
