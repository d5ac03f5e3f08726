//go:build cgotorch_so

package shim

// libcgotorch.so, and empty stand-ins for the libtorch that gotorch's own flags
// name, lie where `make libcgotorch` puts them. A program looks for the library
// in its own folder too.

// #cgo LDFLAGS: -L${SRCDIR}/../../build/cgotorch -Wl,--as-needed -lcgotorch -Wl,-rpath,$ORIGIN
import "C"
