package shim

// #include "shim.h"
import "C"

import (
	"runtime"
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

func cbool(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// SetRequiresGrad says whether autograd records operations on a leaf tensor.
func SetRequiresGrad(t torch.Tensor, on bool) error {
	return with("requires_grad_", t, func(p unsafe.Pointer) *C.char { return C.hcunet_set_requires_grad(p, cbool(on)) })
}

// Backward adds the gradient of the scalar t to the leaves it depends on.
func Backward(t torch.Tensor, retainGraph bool) error {
	return with("backward", t, func(p unsafe.Pointer) *C.char { return C.hcunet_backward(p, cbool(retainGraph)) })
}

// Grad returns the gradient of t; ok is false where there is none.
func Grad(t torch.Tensor) (grad torch.Tensor, ok bool, err error) {
	var out unsafe.Pointer
	err = with("grad", t, func(p unsafe.Pointer) *C.char { return C.hcunet_grad(p, &out) })
	if err != nil || out == nil {
		return torch.Tensor{}, false, err
	}
	return wrap(out), true, nil
}

// SetGrad replaces the gradient of t; a tensor without a handle removes it.
func SetGrad(t, grad torch.Tensor) error {
	var g unsafe.Pointer
	if grad.T != nil {
		var err error
		if g, err = handle(grad); err != nil {
			return &Error{"set_grad", err.Error()}
		}
	}
	err := with("set_grad", t, func(p unsafe.Pointer) *C.char { return C.hcunet_set_grad(p, g) })
	runtime.KeepAlive(grad.T)
	return err
}

// SetData makes t share the storage, type and device of data; t stays the same
// variable, with its requires_grad.
func SetData(t, data torch.Tensor) error {
	d, err := handle(data)
	if err != nil {
		return &Error{"set_data", err.Error()}
	}
	err = with("set_data", t, func(p unsafe.Pointer) *C.char { return C.hcunet_set_data(p, d) })
	runtime.KeepAlive(data.T)
	return err
}

// NoGrad runs f while autograd records nothing on this thread, to which it locks
// the goroutine meanwhile.
func NoGrad(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := C.hcunet_grad_mode(0)
	defer C.hcunet_grad_mode(before)
	f()
}

// GradEnabled says whether autograd records on this thread.
func GradEnabled() bool { return C.hcunet_grad_mode(-1) != 0 }

// Autocast runs f with automatic mixed precision in dtype on one kind of device;
// like NoGrad it concerns this thread only.
func Autocast(cuda bool, dtype int8, f func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var on, old, ignored C.int
	if err := check("autocast", C.hcunet_autocast(cbool(cuda), 1, C.int(dtype), &on, &old)); err != nil {
		return err
	}
	defer func() {
		// Restoring what was read cannot fail where setting did not.
		_ = check("autocast", C.hcunet_autocast(cbool(cuda), on, old, &ignored, &ignored))
	}()
	f()
	return nil
}
