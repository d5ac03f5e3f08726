// Package nn provides the layers, optimizers and tensor operations of
// segmentation networks on libtorch: convolutions, norms, pixel shuffle,
// attention, Adam and SGD, and the loading and saving of weights. The losses are
// in package loss.
//
// A tensor is a gotorch.Tensor, so this package and other gotorch code can be used
// together. Images are (N, C, H, W): N batch, C channels, H height, W width.
//
// # Errors
//
// Operations and layers panic with an [*Error] when libtorch refuses a call (wrong
// shape, wrong device, out of memory). A layer that checks its input itself panics
// with an [*InputError]. Forward therefore returns only a tensor and reads like the
// equation in the paper. [Try] turns such a panic into an error; a public function
// that computes with tensors calls it once. Backward, the optimizers and everything
// that reads or writes data return errors themselves.
//
// # Memory
//
// A tensor made inside a [Scope] is freed when the scope ends. Each training step
// and each prediction runs in a scope; parameters, buffers and optimizer state are
// made outside of any scope. Within a scope, [Result] frees the intermediate tensors
// of one part of the computation early.
//
// On the CPU of a Linux machine, the memory of a freed tensor of 1 MiB or more is kept
// for the next tensor of about the same size, because getting fresh memory from the
// system takes more time than most operators. Kept and used memory together never
// exceed the largest amount that tensors have used at one time. [ReleaseMemory]
// returns the kept memory to the system.
//
// # Goroutines
//
// No layer stores whether it is being trained: the mode is an argument of Forward.
// A forward pass in [Eval] writes nothing but its own result, so any number of
// goroutines may predict with one network at the same time. A forward pass in [Train]
// changes running statistics and singular vectors, and a backward pass adds to the
// gradients: only one goroutine may use a network while it is being trained.
// Different networks may be trained on different goroutines.
//
// The threads inside an operation (OpenMP, OpenBLAS) spin for a while before they
// sleep. On a machine where other work needs the cores, this can double the running
// time. With OMP_WAIT_POLICY=passive and OPENBLAS_THREAD_TIMEOUT=4 in the environment
// they sleep at once. Both variables are read before main, so a library cannot set
// them, but a program can set them and start itself again, as the examples do.
//
// [Scope], [NoGrad] and [Autocast] lock the calling goroutine to its thread while
// they run. They apply to this goroutine only, not to goroutines that it starts.
package nn

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// An Error is libtorch's message about a call that failed.
type Error = shim.Error

// An InputError reports an input that a network or a layer cannot take.
type InputError struct {
	Layer string // the layer or network that refused the input, such as "unet"
	Msg   string // the input that came and the input that was wanted
}

func (e *InputError) Error() string { return e.Layer + ": " + e.Msg }

// Try calls f and returns libtorch's error, if there is one. The error may come from
// a panic of an operation of this package or of gotorch, or from a gotorch function
// that has no result and stores its error instead. Try also returns the *[InputError]
// that a layer panicked with. It does not recover any other panic, so that a bug is
// not hidden.
func Try(f func()) (err error) {
	// A stored error belongs to the thread that stored it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() {
		switch r := recover().(type) {
		case nil:
			err = errors.Join(err, shim.Pending())
		case *Error:
			err = r
		case *InputError:
			err = r
		case string: // gotorch panics with libtorch's text
			err = &Error{Op: "gotorch", Msg: r}
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// must panics with err, an error of libtorch, unless it is nil.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Scope runs f and then frees every tensor that was made on this thread while f ran,
// except those passed to [Keep]. It returns the number of tensors freed. Using a
// freed tensor is an error. Scopes may be nested. If f panics, the tensors are freed
// as well.
func Scope(f func()) (freed int64) { return shim.Scope(f) }

// Keep moves tensors from the innermost scope of this thread to the scope around it.
// Where there is no scope around it, the tensors live until Go's garbage collector
// frees them. Tensors that were not made in the innermost scope stay where they are.
func Keep(ts ...torch.Tensor) { shim.Keep(ts...) }

// ReleaseMemory returns the kept memory of freed CPU tensors to the system and returns
// its size in bytes (see Memory above). It is meant for a program that will not need
// as much memory again.
func ReleaseMemory() int64 { return shim.ReleaseMemory() }

// Result returns f's result and frees every other tensor that was made while f ran.
// libtorch itself keeps the values that a later backward pass needs.
func Result(f func() torch.Tensor) (y torch.Tensor) {
	Scope(func() {
		y = f()
		Keep(y)
	})
	return y
}

// NoGrad runs f without recording its operations for a backward pass.
func NoGrad(f func()) { shim.NoGrad(f) }

// Autocast runs f in automatic mixed precision, for operations on the CPU or, if
// device is a CUDA device, on CUDA: convolutions and matrix products in dtype, sums
// and losses in float32. On an x86-64 CPU without AVX-512 those in BFloat16 compute in
// float32 with the float32 parameters, and round their results.
func Autocast(device Device, dtype DType, f func()) {
	must(shim.Autocast(device.cuda, int8(dtype), f))
}

// SetThreads sets the number of threads inside an operation on the CPU, OpenBLAS
// included, at least 1. Another number may change the last bits of a result.
// The default is runtime.GOMAXPROCS, or the value of OMP_NUM_THREADS or
// MKL_NUM_THREADS where the environment has one of them.
func SetThreads(n int) error {
	if n < 1 {
		return fmt.Errorf("nn: %d threads, wanted at least 1", n)
	}
	shim.SetThreads(n)
	return nil
}

// Threads returns the number of threads inside an operation on the CPU.
func Threads() int { return shim.Threads() }

// BLASThreads returns the number of threads inside a matrix product of OpenBLAS, and 0
// if libtorch uses another library for these.
func BLASThreads() int { return shim.BLASThreads() }

// LibtorchVersion returns the version of libtorch that this program was built with.
func LibtorchVersion() string { return shim.Version() }
