//go:build cgotorch_so

package shim

// libcgotorch.so lies where `make libcgotorch` puts it, or in a -L of
// CGO_LDFLAGS; a program looks for it in its own folder too. The stubs stand in
// for the libtorch that gotorch's own flags name.

// #cgo LDFLAGS: -L${SRCDIR}/../../build/cgotorch -L${SRCDIR}/stubs/cgotorch_so -Wl,--as-needed -lcgotorch -Wl,-rpath,$ORIGIN
import "C"
