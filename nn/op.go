package nn

import (
	"fmt"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// An Op is an operator of libtorch, for what this package has no function of its
// own. It may be kept in a package variable and used from any goroutine.
type Op struct {
	name string
	op   *shim.Op
}

// NewOp names an operator as PyTorch's native_functions.yaml does: "relu",
// "add.Tensor". Whether this libtorch has it shows at the first call.
func NewOp(name string) Op { return Op{name, shim.NewOp(name)} }

// Call returns the operator's first result. The arguments come in the schema's
// order, with trailing ones left to their defaults; each is a torch.Tensor, int,
// int64, float64, bool, []int64, []torch.Tensor, DType, Device, or nil for an
// absent optional one. It panics with an [*Error] when libtorch refuses, and on an
// argument of another type.
func (o Op) Call(args ...any) torch.Tensor { return o.CallAll(args...)[0] }

// CallAll is Call for an operator of several results, or none.
func (o Op) CallAll(args ...any) []torch.Tensor {
	converted := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case nil:
			converted[i] = shim.None{}
		case Device:
			converted[i] = a.arg()
		case DType:
			converted[i] = int(a)
		case torch.Tensor, []torch.Tensor, int, int64, float64, bool, []int64:
			converted[i] = a
		default:
			panic(fmt.Errorf("nn: operator %s: argument %d is a %T", o.name, i, a))
		}
	}
	out, err := o.op.Call(converted...)
	must(err)
	return out
}
