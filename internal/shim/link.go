//go:build !cgotorch_so

package shim

// Without --no-as-needed the linker drops libtorch.so, and with it
// libtorch_cuda.so: CUDA would silently be unavailable.

// #cgo LDFLAGS: -L${SRCDIR}/stubs -Wl,--no-as-needed -ltorch -Wl,--as-needed -ltorch_cpu -lc10 -lgomp
import "C"
