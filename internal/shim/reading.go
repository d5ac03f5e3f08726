package shim

// #include "shim.h"
import "C"

import (
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// A Reading is a copy of a tensor's values that is on its way from a device.
type Reading[N Number] struct {
	p unsafe.Pointer
	n C.int64_t
}

// BeginRead asks for the values of t, converted to N, as they are after the operations that
// its device was given so far. It does not wait.
func BeginRead[N Number](t torch.Tensor) (*Reading[N], error) { return beginRead[N](t, true) }

// beginRead is BeginRead; if later is set, t may change before the end.
func beginRead[N Number](t torch.Tensor, later bool) (*Reading[N], error) {
	r := &Reading[N]{}
	err := with("read", t, func(p unsafe.Pointer) *C.char { return C.hcunet_read_begin(p, dtypeOf[N](), cbool(later), &r.p, &r.n) })
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Values waits for the values and returns them in row-major order. It or CopyTo must be called
// once, which frees r.
func (r *Reading[N]) Values() ([]N, error) {
	data := make([]N, r.n)
	return data, r.CopyTo(data)
}

// CopyTo is Values into data, which must have exactly its size.
func (r *Reading[N]) CopyTo(data []N) error {
	p := r.p
	if p == nil {
		return &Error{"read", "the values were taken before"}
	}
	r.p = nil
	return check("read", C.hcunet_read_end(p, unsafe.Pointer(unsafe.SliceData(data)), C.int64_t(len(data))))
}

// Slice returns the values of t, converted to N.
func Slice[N Number](t torch.Tensor) ([]N, error) {
	r, err := beginRead[N](t, false)
	if err != nil {
		return nil, err
	}
	return r.Values()
}

// ToSlice copies t, converted to N, into data, which must have exactly its size.
func ToSlice[N Number](t torch.Tensor, data []N) error {
	r, err := beginRead[N](t, false)
	if err != nil {
		return err
	}
	return r.CopyTo(data)
}
