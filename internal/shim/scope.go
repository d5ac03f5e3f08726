package shim

// #include "shim.h"
import "C"

import (
	"errors"
	"runtime"

	torch "github.com/wangkuiyi/gotorch"
)

// Scope runs f and then frees, at once, every tensor made on this thread while
// f ran, by whichever side, except those that f passed to keep; these belong to
// the enclosing scope, if there is one. It returns how many were freed.
//
// A tensor that was freed is empty: using it is an error. Scopes nest and lock
// the goroutine to its thread; a panic passes through and frees
// as well. A tensor must not be in use on another goroutine when its scope ends.
func Scope(f func(keep func(...torch.Tensor))) (freed int64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	scope := C.hcunet_scope_begin()
	defer func() {
		scope = nil
		freed = int64(C.hcunet_scope_end())
	}()
	f(func(ts ...torch.Tensor) {
		if scope == nil {
			panic(errors.New("shim: keep was called after its scope had ended"))
		}
		for _, t := range ts {
			if p, err := handle(t); err == nil {
				C.hcunet_scope_keep(scope, p)
			}
			runtime.KeepAlive(t.T)
		}
	})
	return
}
