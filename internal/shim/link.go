//go:build !cgotorch_so

package shim

// Without --no-as-needed the linker drops libtorch.so, and with it
// libtorch_cuda.so: CUDA would silently be unavailable. With --allow-shlib-undefined
// it need not read the 280 libraries behind Debian's libtorch, which took 40 % of its time.

// #cgo LDFLAGS: -L${SRCDIR}/stubs -Wl,--allow-shlib-undefined -Wl,--no-as-needed -ltorch -Wl,--as-needed -ltorch_cpu -lc10 -lgomp
import "C"
