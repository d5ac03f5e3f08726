package shim

// #include "shim.h"
import "C"

import (
	"runtime"
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// Scope runs f and then frees, at once, every tensor made on this thread while
// f ran, by whichever side, except those that f passed to keep; these belong to
// the enclosing scope, if there is one. It returns how many were freed. The
// goroutine is locked to its thread meanwhile. Scopes nest; a panic passes
// through and frees as well.
func Scope(f func(keep func(...torch.Tensor))) (freed int64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	C.hcunet_scope_begin()
	defer func() { freed = int64(C.hcunet_scope_end()) }()
	f(func(ts ...torch.Tensor) {
		for _, t := range ts {
			if p, err := handle(t); err == nil {
				C.hcunet_scope_keep(unsafe.Pointer(p))
			}
			runtime.KeepAlive(t.T)
		}
	})
	return
}
