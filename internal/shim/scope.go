package shim

// #include "shim.h"
import "C"

import (
	"runtime"

	torch "github.com/wangkuiyi/gotorch"
)

// Scope runs f and then frees, at once, every tensor made on this thread while
// f ran, by whichever side, except those that were passed to [Keep]. It returns
// how many were freed.
//
// A tensor that was freed is empty: using it is an error. Scopes nest and lock
// the goroutine to its thread; a panic passes through and frees
// as well. A tensor must not be in use on another goroutine when its scope ends.
func Scope(f func()) (freed int64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	C.hcunet_scope_begin()
	defer func() { freed = int64(C.hcunet_scope_end()) }()
	f()
	return
}

// Keep moves tensors of this thread's innermost scope to the scope around it, or
// out of all scopes where there is none around it. Tensors of other scopes stay
// where they are.
func Keep(ts ...torch.Tensor) {
	for _, t := range ts {
		if p, err := handle(t); err == nil {
			C.hcunet_scope_keep(p)
		}
		runtime.KeepAlive(t.T)
	}
}
