package nn

import (
	"fmt"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// An Op is an operator of libtorch. It is meant for operators that this package has no
// function for. It may be kept in a package variable and used from any goroutine.
type Op struct {
	name string
	op   *shim.Op
}

// NewOp returns the operator that PyTorch's native_functions.yaml calls name, such as
// "relu" or "add.Tensor". An operator that this libtorch does not have is an error of
// the first call.
func NewOp(name string) Op { return Op{name, shim.NewOp(name)} }

// Call returns the operator's first result. The arguments stand in the schema's
// order; trailing arguments that are left out take their default values. Each
// argument is a torch.Tensor, int, int64, float64, bool, []int64, []torch.Tensor,
// DType or Device, or nil for an optional argument that is absent. Call panics with
// an [*Error] when libtorch refuses the call, and with another error on an argument
// of another type.
func (o Op) Call(args ...any) torch.Tensor { return o.CallAll(args...)[0] }

// CallAll is like Call but returns all results. An operator may have several or none.
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
