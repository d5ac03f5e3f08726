// Package shim is the native room: the only package with C++ in it, and the
// only door to libtorch besides gotorch's own.
//
// shim.cc implements the C interface that gotorch declares (so that gotorch needs
// no library of its own) and adds calls to any operator of libtorch's dispatcher,
// scopes, and guarded autograd, all on the handles behind gotorch.Tensor.
// winograd.cc computes convolutions by 3x3, adam.cc the steps of Adam, and planar.cc
// upsampling and residual sums, faster than libtorch does on the CPU. fused.h has layers
// that are faster on a GPU, and fused_cpu.h those of planar.cc.
// Every call returns libtorch's errors as Go errors, and keeps its operands alive
// until C++ is done with them.
//
// By default `go build` compiles them against the libtorch it finds under
// /usr (Debian's libtorch-dev); CGO_CXXFLAGS and CGO_LDFLAGS name another one.
// With the build tag cgotorch_so nothing is compiled: the program links with a
// libcgotorch.so made by `make libcgotorch` and needs no other library.
package shim

// Debug information (cgo's default is -g) would take 40 % of the time to compile.

// #cgo CXXFLAGS: -std=c++20 -O1 -g0 -fopenmp -Wno-deprecated-declarations -I/usr/include/torch/csrc/api/include
// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// gotorch's init takes half of the cores. All that Go itself would use, which a
// container's quota may limit, is the better default.
func init() {
	if os.Getenv("OMP_NUM_THREADS") == "" && os.Getenv("MKL_NUM_THREADS") == "" {
		SetThreads(runtime.GOMAXPROCS(0))
	}
}

// An Error is what libtorch said of a call that failed, or what we said before
// it was called.
type Error struct {
	Op  string // the operator or function, such as "conv2d"; "" where the words are ours
	Msg string
}

func (e *Error) Error() string {
	if e.Op == "" {
		return e.Msg
	}
	return fmt.Sprintf("libtorch: %s: %s", e.Op, e.Msg)
}

// check turns a C error text into an *Error and frees it.
func check(op string, text *C.char) error {
	if text == nil {
		return nil
	}
	msg := C.GoString(text)
	C.hcunet_free(unsafe.Pointer(text))
	return &Error{op, msg}
}

// Pending returns the error that a void function of gotorch (Backward, an
// optimizer's Step, ...) left on this thread, and clears it.
func Pending() error { return check("gotorch", C.hcunet_pending()) }

// Version returns the version of the libtorch headers this was compiled with.
func Version() string { return C.GoString(C.hcunet_torch_version()) }

// LiveHandles returns the number of tensor handles that exist now.
func LiveHandles() int64 { return int64(C.hcunet_live_handles()) }

// SetThreads sets the number of threads inside an operator, on every thread from its
// next call on, and that of OpenBLAS at once; n < 1 changes nothing.
func SetThreads(n int) { C.hcunet_set_threads(C.int(n)) }

// Threads returns the number of threads inside an operator.
func Threads() int { return int(C.hcunet_threads()) }

// BLASThreads returns the number of threads inside a matrix product of OpenBLAS, and 0
// if libtorch uses another library for these.
func BLASThreads() int { return int(C.hcunet_blas_threads()) }

// FastConvolutions switches the fast convolutions of this package on or off, for all
// threads, and says whether they were on. They stay off where the processor has no AVX2.
func FastConvolutions(on bool) bool {
	return C.hcunet_fast_convolutions(cbool(on)) != 0
}

// NativeBFloat16 switches whether libtorch computes convolutions and products of bfloat16
// on the CPU, for tests, and returns what was. At the start it does so on processors with
// instructions for it; elsewhere this package converts their operands to float32.
func NativeBFloat16(on bool) bool { return C.hcunet_native_bfloat16(cbool(on)) != 0 }

// CUDADevices returns the number of usable CUDA devices, 0 without CUDA.
func CUDADevices() int { return int(C.hcunet_cuda_devices()) }

// Synchronize waits for all work on a CUDA device.
func Synchronize(index int) error {
	return check("cuda synchronize", C.hcunet_cuda_synchronize(C.int(index)))
}

// ReleaseMemory returns to the system what is kept of freed tensors' memory on the
// CPU, and says how many bytes it was.
func ReleaseMemory() int64 { return int64(C.hcunet_release_memory()) }

// Seed sets the seed of libtorch's generators on every device.
func Seed(seed uint64) error { return check("manual_seed", C.hcunet_seed(C.uint64_t(seed))) }

var errNil = errors.New("nil tensor: it was never assigned")

// handle returns the at::Tensor* of t.
func handle(t torch.Tensor) (unsafe.Pointer, error) {
	if t.T == nil || *t.T == nil {
		return nil, errNil
	}
	return *t.T, nil
}

// wrap gives a new handle to Go's collector.
func wrap(p unsafe.Pointer) torch.Tensor {
	t := new(unsafe.Pointer)
	*t = p
	torch.SetTensorFinalizer(t)
	return torch.Tensor{T: t}
}

// with calls f on t's handle and keeps t alive until f returns.
func with(op string, t torch.Tensor, f func(p unsafe.Pointer) *C.char) error {
	p, err := handle(t)
	if err != nil {
		return &Error{op, err.Error()}
	}
	err = check(op, f(p))
	runtime.KeepAlive(t.T)
	return err
}

// SearchConvolutions says whether cuDNN measures its algorithms at the first
// convolution of each shape and takes the fastest, instead of guessing which it is.
func SearchConvolutions(on bool) { C.hcunet_search_convolutions(cbool(on)) }
