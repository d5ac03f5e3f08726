// Package nn is the vocabulary of layers that segmentation networks are written
// in, on libtorch: convolutions, norms, pixel shuffle, attention, the
// optimizers, and the loading and saving of weights. Losses are package loss.
//
// A tensor is a gotorch.Tensor, so other gotorch code composes with this. Images
// are (N, C, H, W): N batch, C channels, H height, W width.
//
// # Errors
//
// Operations and layers panic with an [*Error] when libtorch refuses a call (wrong
// shape, wrong device, out of memory), and with an [*InputError] where a layer
// knows better what is wrong, so that a Forward reads like the equation
// in the paper. [Try] turns that panic into an error, once, at the door of a
// public call; Backward, the optimizer and everything that reads or writes data
// return errors themselves.
//
// # Memory
//
// A tensor made inside a [Scope] is freed at its end. A training step and a
// prediction are scopes; parameters, buffers and optimizer state are made
// outside of one. Inside of them [Result] frees what a part leaves behind.
//
// On the CPU the memory of a large tensor is kept for the next one of about its size,
// as fresh memory costs more time than most operators. Kept and used memory together
// never exceed the most that tensors used at one time; [ReleaseMemory] gives back what
// is kept.
//
// # Goroutines
//
// No layer remembers whether it is in training: that is an argument of Forward.
// A forward pass in [Eval] writes nothing but its own result, so any number of
// goroutines may predict with one network at once. One in [Train] moves running
// statistics and singular vectors, and a backward pass adds to the gradients: a
// network that is being trained belongs to one goroutine, and nothing else may
// use it meanwhile. Different networks may be trained on different goroutines.
//
// Idle threads of an operation spin for a while before they sleep (OpenMP, OpenBLAS),
// which costs much where other work wants the cores: on a busy machine, twice the time
// and more. OMP_WAIT_POLICY=passive and OPENBLAS_THREAD_TIMEOUT=4 in the environment
// have them sleep at once. These are read before main, so that no library can set them,
// but a program can start itself again with them, as the examples do.
//
// [Scope], [NoGrad] and [Autocast] hold for the goroutine that called them, which
// they lock to its thread, and not for goroutines that it starts.
package nn

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// An Error is what libtorch said of a call that failed.
type Error = shim.Error

// An InputError is an input that a network or a layer cannot take.
type InputError struct {
	Layer string // who refused it, such as "unet"
	Msg   string // what came and what was wanted
}

func (e *InputError) Error() string { return e.Layer + ": " + e.Msg }

// Try calls f and returns libtorch's error, if there is one: from the panic of an
// operation of this package or of gotorch, or the error that a gotorch function
// without a result has stored. It also returns the *[InputError] of a layer. Try does
// not recover any other panic, so that a bug stays a bug.
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

// must panics with libtorch's error.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Scope runs f and then frees every tensor made on this thread meanwhile, except
// those passed to [Keep]. It returns how many were freed. Scopes nest.
func Scope(f func()) (freed int64) { return shim.Scope(f) }

// Keep moves tensors of the innermost scope of this thread to the scope around
// it; where there is none around it, they live until Go's collector frees them.
func Keep(ts ...torch.Tensor) { shim.Keep(ts...) }

// ReleaseMemory gives back to the system what is kept of freed tensors' memory on the
// CPU, and returns how many bytes it was. It is for a program that has done the largest
// thing it will do.
func ReleaseMemory() int64 { return shim.ReleaseMemory() }

// Result returns f's result and frees every other tensor that was made meanwhile.
// What a backward pass needs of them it keeps by itself, until it has passed.
func Result(f func() torch.Tensor) (y torch.Tensor) {
	Scope(func() {
		y = f()
		Keep(y)
	})
	return y
}

// NoGrad runs f without recording for gradients.
func NoGrad(f func()) { shim.NoGrad(f) }

// Autocast runs f in automatic mixed precision: convolutions and matrix
// products in dtype, sums and losses in float32.
func Autocast(device Device, dtype DType, f func()) {
	must(shim.Autocast(device.cuda, int8(dtype), f))
}

// SetThreads sets the number of threads inside an operation on the CPU; the
// default is one a core.
func SetThreads(n int) error {
	if n < 1 {
		return fmt.Errorf("nn: %d threads, wanted at least 1", n)
	}
	shim.SetThreads(n)
	return nil
}

// Threads returns the number of threads inside an operation on the CPU.
func Threads() int { return shim.Threads() }

// LibtorchVersion returns the version of libtorch this program was built with.
func LibtorchVersion() string { return shim.Version() }
