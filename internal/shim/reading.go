package shim

// #include "shim.h"
import "C"

import (
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// A Reading is a copy of a tensor's values that is on its way from a device.
type Reading struct {
	p unsafe.Pointer
	n int64
}

// BeginRead asks for the values of t as they are after the operations that its device was
// given so far. It does not wait.
func BeginRead(t torch.Tensor) (*Reading, error) {
	r := &Reading{}
	err := with("begin_read", t, func(p unsafe.Pointer) *C.char {
		return C.hcunet_read_begin(p, &r.p, (*C.int64_t)(&r.n))
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Values waits for the values and returns them. It must be called once, which frees r.
func (r *Reading) Values() ([]float64, error) {
	v := make([]float64, r.n)
	err := check("read", C.hcunet_read_end(r.p, (*C.double)(unsafe.SliceData(v))))
	r.p = nil
	return v, err
}
