package nn

import (
	"fmt"
	"sync"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

var named sync.Map // string to *shim.Op

// Call calls any operator of libtorch by its name in native_functions.yaml, such
// as "cumsum" or "add.Tensor", for what this package has no function for. It
// returns the operator's tensors, and panics like all operations here.
//
// Arguments are in the order of the operator's schema; trailing ones that are left
// out take its defaults. An argument is a torch.Tensor, []torch.Tensor, int,
// int64, float64, bool, []int64, a [Device], a [DType], or nil where an optional
// one is absent.
func Call(name string, args ...any) []torch.Tensor {
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
			panic(fmt.Errorf("nn: Call %s: argument %d is a %T", name, i, a))
		}
	}
	op, ok := named.Load(name)
	if !ok {
		op, _ = named.LoadOrStore(name, shim.NewOp(name))
	}
	out, err := op.(*shim.Op).Call(converted...)
	must(err)
	return out
}
