package nn_test

import (
	"encoding/json"
	"fmt"
	"log"

	"github.com/hcunet/hcunet/nn"
)

// The state of an optimizer is loaded into a second one, which continues from it.
func ExampleOptimizer() {
	p := nn.Full(nn.CPU, nn.Double, 1)
	nn.SetRequiresGrad(p, true)
	groups := [][]nn.Named{{{Name: "p", Tensor: p}}}
	step := func(o nn.Optimizer) {
		err := nn.DropGrad(groups[0])
		if err == nil {
			nn.Scope(func() { err = nn.Backward(nn.Mul(p, p)) })
		}
		if err == nil {
			err = o.Step([]nn.Hyper{{Rate: 0.125, Momentum: 0.5}})
		}
		if err != nil {
			log.Fatal(err)
		}
		v, err := nn.Item(p)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(v)
	}

	config := nn.DefaultSGD()
	first, err := config.New(groups)
	if err != nil {
		log.Fatal(err)
	}
	step(first) // 1 - 0.125*2
	state, err := first.State()
	if err != nil {
		log.Fatal(err)
	}

	second, err := config.New(groups)
	if err != nil {
		log.Fatal(err)
	}
	if err := second.LoadState(state); err != nil {
		log.Fatal(err)
	}
	step(second) // 0.75 - 0.125*(0.5*2 + 2*0.75)

	adam, err := nn.DefaultAdam().New(groups)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(adam.LoadState(state))
	// Output:
	// 0.75
	// 0.4375
	// nn: a state of sgd for an optimizer of adam
}

// In JSON, a configuration has the fields of its kind.
func ExampleOptimizerConfig() {
	for _, config := range []nn.OptimizerConfig{
		nn.KernelAdam(),
		{Kind: nn.SGD, Nesterov: true, Decay: nn.DecayDecoupled},
	} {
		b, err := json.Marshal(config)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(config)
		fmt.Println(string(b))
	}
	var config nn.OptimizerConfig
	fmt.Println(json.Unmarshal([]byte(`{"kind": "sgd", "eps": 1}`), &config))
	// Output:
	// adam(beta2=0.99, eps=1e-08, epsilon=before, decay_frozen_bias)
	// {"kind":"adam","beta2":0.99,"eps":1e-8,"epsilon":"before","decay":"decoupled","decay_frozen_bias":true}
	// sgd(nesterov)
	// {"kind":"sgd","nesterov":true,"dampening":0,"decay":"decoupled","decay_frozen_bias":false}
	// nn: sgd: unknown field "eps", wanted kind, nesterov, dampening, decay, decay_frozen_bias
}

// This package has no function for libtorch's operator sort, so NewOp is used.
func ExampleOp() {
	sort := nn.NewOp("sort")
	x, err := nn.FromSlice(nn.CPU, []float32{2, 3, 1}, 3)
	if err != nil {
		log.Fatal(err)
	}
	sorted := sort.CallAll(x, -1, true) // the last dimension, descending
	for _, t := range sorted {
		v, err := nn.Slice[float64](t)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(v)
	}
	fmt.Println(nn.Try(func() { nn.NewOp("no_such_operator").Call(x) }))
	// Output:
	// [3 2 1]
	// [1 0 2]
	// libtorch: no_such_operator: Could not find schema for aten::no_such_operator.
}
