package shim

// #include "shim.h"
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// Adam holds the numbers of a step of Adam, as adam.h defines them, but for the rests.
type Adam struct{ Beta1, Beta2, Size, Root, Eps, Keep, L2 float64 }

// Step changes params and the first and second moments of their gradients, in one pass over
// the memory. done is false, and nothing has changed, if they are not float32 on a CPU with
// AVX2, or if a moment has another memory format than its parameter.
func (a Adam) Step(params, grads, means, squares []torch.Tensor) (done bool, err error) {
	var handles [4][]unsafe.Pointer
	for i, list := range [][]torch.Tensor{params, grads, means, squares} {
		if len(list) != len(params) {
			return false, &Error{"adam", fmt.Sprintf("%d tensors for %d parameters", len(list), len(params))}
		}
		for _, t := range list {
			p, err := handle(t)
			if err != nil {
				return false, &Error{"adam", err.Error()}
			}
			handles[i] = append(handles[i], p)
		}
	}
	numbers := [...]C.float{C.float(a.Beta1), C.float(1 - a.Beta1), C.float(a.Beta2), C.float(1 - a.Beta2), C.float(a.Size), C.float(a.Root), C.float(a.Eps), C.float(a.Keep), C.float(a.L2)}
	var yes C.int
	err = check("adam", C.hcunet_adam(unsafe.SliceData(handles[0]), unsafe.SliceData(handles[1]), unsafe.SliceData(handles[2]),
		unsafe.SliceData(handles[3]), C.int64_t(len(params)), &numbers[0], &yes))
	runtime.KeepAlive([][]torch.Tensor{params, grads, means, squares})
	return yes != 0, err
}
