package shim

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// An Op is an operator of libtorch's dispatcher. It is looked up at its first
// call and may be kept in a package variable.
type Op struct {
	name, overload string
	found          atomic.Pointer[foundOp]
}

// foundOp is an operator as the dispatcher knows it; it is never freed.
type foundOp struct {
	handle unsafe.Pointer
	lists  bool // it returns a list of tensors
}

// NewOp names an operator as libtorch's native_functions.yaml does, without the
// namespace: "conv2d", "add.Tensor".
func NewOp(name string) *Op {
	base, overload, _ := strings.Cut(name, ".")
	return &Op{name: base, overload: overload}
}

// None is an absent optional argument.
type None struct{}

// A Device is an argument that names a device.
type Device struct {
	CUDA  bool
	Index int
	Meta  bool // shapes and types without values
}

// kind is the device's type in shim.h.
func (d Device) kind() int {
	switch {
	case d.CUDA:
		return 1
	case d.Meta:
		return 2
	}
	return 0
}

// MaxResults bounds the tensors that an operator may return in a list.
const MaxResults = 4096

// Call calls the operator with its arguments in the schema's order; trailing
// arguments that are left out take the schema's defaults. An argument is a
// torch.Tensor (one without a handle stands for an absent optional), None, int,
// int64, float64, bool, []int64, []torch.Tensor or Device.
func (op *Op) Call(args ...any) ([]torch.Tensor, error) {
	found, err := op.find()
	if err != nil {
		return nil, err
	}
	var (
		argv    [16]C.hcunet_arg
		ints    []int64
		handles []unsafe.Pointer
		room    = 8
	)
	if len(args) > len(argv) {
		return nil, &Error{op.name, fmt.Sprintf("%d arguments, at most %d", len(args), len(argv))}
	}
	for i, a := range args {
		c := &argv[i]
		switch a := a.(type) {
		case None:
			c.tag = C.hcunet_none
		case torch.Tensor:
			if a.T == nil {
				c.tag = C.hcunet_none
				break
			}
			c.tag, c.t = C.hcunet_tensor, *a.T
		case int:
			c.tag, c.i = C.hcunet_int, C.int64_t(a)
		case int64:
			c.tag, c.i = C.hcunet_int, C.int64_t(a)
		case float64:
			c.tag, c.d = C.hcunet_double, C.double(a)
		case bool:
			c.tag = C.hcunet_bool
			if a {
				c.i = 1
			}
		case []int64:
			c.tag, c.i, c.n = C.hcunet_ints, C.int64_t(len(ints)), C.int32_t(len(a))
			ints = append(ints, a...)
		case []torch.Tensor:
			c.tag, c.i, c.n = C.hcunet_tensors, C.int64_t(len(handles)), C.int32_t(len(a))
			for _, t := range a {
				p, err := handle(t)
				if err != nil {
					return nil, &Error{op.name, err.Error()}
				}
				handles = append(handles, p)
			}
		case Device:
			c.tag, c.i, c.n = C.hcunet_device, C.int64_t(a.kind()), C.int32_t(a.Index)
		default:
			panic(fmt.Errorf("shim: %s: argument %d has type %T", op.name, i, a))
		}
	}
	if found.lists {
		room = MaxResults
	}
	out := make([]unsafe.Pointer, room)
	results := C.int64_t(len(out))
	err = check(op.name, C.hcunet_call(found.handle, &argv[0], C.int64_t(len(args)),
		(*C.int64_t)(unsafe.SliceData(ints)), unsafe.SliceData(handles), unsafe.SliceData(out), &results))
	runtime.KeepAlive(args)
	if err != nil {
		return nil, err
	}
	tensors := make([]torch.Tensor, results)
	for i := range tensors {
		tensors[i] = wrap(out[i])
	}
	return tensors, nil
}

func (op *Op) find() (*foundOp, error) {
	if found := op.found.Load(); found != nil {
		return found, nil
	}
	name, overload := C.CString("aten::"+op.name), C.CString(op.overload)
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(overload))
	var lists C.int
	found := new(foundOp)
	if err := check(op.name, C.hcunet_find(name, overload, &found.handle, &lists)); err != nil {
		return nil, err
	}
	found.lists = lists != 0
	op.found.Store(found)
	return found, nil
}
