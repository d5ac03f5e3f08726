package shim

// #include "shim.h"
import "C"

import (
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// A Number is an element type that crosses the border as a Go slice.
type Number interface {
	float32 | float64 | int64 | int32 | int16 | int8 | uint8 | bool
}

// dtypeOf returns the c10::ScalarType of a Go element type.
func dtypeOf[N Number]() C.int {
	var zero N
	switch any(zero).(type) {
	case float32:
		return C.int(torch.Float)
	case float64:
		return C.int(torch.Double)
	case int64:
		return C.int(torch.Long)
	case int32:
		return C.int(torch.Int)
	case int16:
		return C.int(torch.Short)
	case int8:
		return C.int(torch.Char)
	case uint8:
		return C.int(torch.Byte)
	default:
		return C.int(torch.Bool)
	}
}

// FromSlice copies data into a new tensor of the given shape on device.
func FromSlice[N Number](data []N, device Device, shape ...int64) (torch.Tensor, error) {
	var out unsafe.Pointer
	var zero N
	// The slice holds no pointers and C++ copies it before it returns.
	err := check("from_data", C.hcunet_from_data(unsafe.Pointer(unsafe.SliceData(data)),
		C.size_t(len(data))*C.size_t(unsafe.Sizeof(zero)), dtypeOf[N](),
		(*C.int64_t)(unsafe.SliceData(shape)), C.int64_t(len(shape)), C.int(device.kind()), C.int(device.Index), &out))
	if err != nil {
		return torch.Tensor{}, err
	}
	return wrap(out), nil
}

// Info describes a tensor. An undefined tensor (an empty handle, as a closed
// scope leaves it) has Defined false and nothing else.
type Info struct {
	Defined      bool
	DType        int8 // gotorch's constants: torch.Float, ...
	Shape        []int64
	Device       Device
	RequiresGrad bool
	Leaf         bool
	ChannelsLast bool
}

// Inspect returns what is known of t.
func Inspect(t torch.Tensor) (Info, error) {
	var c C.hcunet_info
	if err := with("inspect", t, func(p unsafe.Pointer) *C.char { return C.hcunet_inspect(p, &c) }); err != nil {
		return Info{}, err
	}
	info := Info{
		Defined:      c.defined != 0,
		DType:        int8(c.dtype),
		Shape:        make([]int64, c.dims),
		Device:       Device{CUDA: c.device_type == 1, Index: int(c.device_index), Meta: c.device_type == 2},
		RequiresGrad: c.requires_grad != 0,
		Leaf:         c.is_leaf != 0,
		ChannelsLast: c.channels_last != 0,
	}
	for i := range info.Shape {
		info.Shape[i] = int64(c.shape[i])
	}
	return info, nil
}
