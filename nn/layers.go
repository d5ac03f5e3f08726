package nn

import (
	"fmt"
	"strconv"

	torch "github.com/wangkuiyi/gotorch"
)

// A Mode says whether a forward pass evaluates or trains. The zero value is Eval.
type Mode bool

const (
	// Eval uses running statistics, changes nothing and draws no random numbers.
	Eval Mode = false
	// Train uses the batch's statistics and updates the running ones; dropout is on.
	Train Mode = true
)

func (m Mode) String() string {
	if m == Train {
		return "train"
	}
	return "eval"
}

// A Layer maps one tensor to one tensor.
type Layer interface {
	Module
	Forward(mode Mode, x torch.Tensor) torch.Tensor
}

// A Sequential is a chain of layers, named "0", "1", ...
type Sequential []Layer

// Forward passes x through the layers in order. Of the tensors that a layer makes,
// only its result is kept.
func (s Sequential) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	for _, l := range s {
		x = Result(func() torch.Tensor { return l.Forward(mode, x) })
	}
	return x
}

// Walk shows the layers.
func (s Sequential) Walk(w Walker) {
	for i, l := range s {
		w.Child(strconv.Itoa(i), l)
	}
}

func (s Sequential) String() string { return "Sequential" }

// A List shows modules under the names "0", "1", ... It has no Forward: the module
// that contains the list connects the modules.
type List []Module

// Walk shows the modules.
func (l List) Walk(w Walker) {
	for i, m := range l {
		w.Child(strconv.Itoa(i), m)
	}
}

func (l List) String() string { return "ModuleList" }

// A Leaf is a line of a printed tree, for a module without tensors or parts.
type Leaf string

// Walk shows nothing.
func (Leaf) Walk(Walker)      {}
func (l Leaf) String() string { return string(l) }

// An Activation is a ReLU layer.
type Activation struct {
	// InPlace overwrites the input; nothing else may need its old values.
	InPlace bool
}

// Forward returns max(x, 0).
func (a Activation) Forward(_ Mode, x torch.Tensor) torch.Tensor {
	if a.InPlace {
		return ReLUInPlace(x)
	}
	return ReLU(x)
}

// Walk shows nothing.
func (Activation) Walk(Walker) {}

func (a Activation) String() string {
	if a.InPlace {
		return "ReLU(inplace)"
	}
	return "ReLU()"
}

// A MaxPool2d takes the maximum over square windows of Kernel x Kernel pixels, Stride
// pixels apart. Padding pixels are added on each side; they are never the maximum.
type MaxPool2d struct{ Kernel, Stride, Padding int64 }

// Forward pools x.
func (p MaxPool2d) Forward(_ Mode, x torch.Tensor) torch.Tensor {
	return call(opMaxPool2d, x, []int64{p.Kernel, p.Kernel}, []int64{p.Stride, p.Stride}, []int64{p.Padding, p.Padding})
}

// Walk shows nothing.
func (MaxPool2d) Walk(Walker) {}

func (p MaxPool2d) String() string {
	return fmt.Sprintf("MaxPool2d(kernel_size=%d, stride=%d, padding=%d, dilation=1, ceil_mode=False)", p.Kernel, p.Stride, p.Padding)
}

// A SigmoidRange maps its input into (Low, High) by a sigmoid.
type SigmoidRange struct{ Low, High float64 }

// Forward returns sigmoid(x)*(High-Low) + Low.
func (s SigmoidRange) Forward(_ Mode, x torch.Tensor) torch.Tensor {
	return AddScalar(MulScalar(Sigmoid(x), s.High-s.Low), s.Low)
}

// Walk shows nothing.
func (SigmoidRange) Walk(Walker) {}

func (s SigmoidRange) String() string { return "SigmoidRange()" }
