package shim

// #include "shim.h"
import "C"

import (
	"runtime"
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// FusedLayers switches the fused layers on or off, for tests that compare both, and
// returns what was. They are on at the start.
func FusedLayers(on bool) (was bool) { return C.hcunet_fused_layers(cbool(on)) != 0 }

// Fused reports whether [ConvReLU] and [Upsample] are the fast way for the map x: it is on
// a CUDA device, autocast is on, and the kernels work there.
func Fused(x torch.Tensor) (bool, error) {
	var yes C.int
	err := with("fused", x, func(p unsafe.Pointer) *C.char { return C.hcunet_fused(p, &yes) })
	return yes != 0, err
}

// FusedCPU reports whether [UpsampleCPU] and [AddReLU] are the fast way for the map x: it is
// a contiguous map of float32 or bfloat16 in the CPU's memory, the processor has AVX2, and
// autocast, if it is on, computes in bfloat16.
func FusedCPU(x torch.Tensor) (bool, error) {
	var yes C.int
	err := with("fused_cpu", x, func(p unsafe.Pointer) *C.char { return C.hcunet_fused_cpu(p, &yes) })
	return yes != 0, err
}

// Conv2d returns the convolution of x (N, In, H, W) with w (Out, In/groups, kh, kw) plus the
// bias b, if it is not the zero torch.Tensor. Stride, padding and dilation hold for both
// directions. Where autocast computes in bfloat16 on the CPU, the result is bfloat16, and no
// copies of w and b are kept for the backward pass.
func Conv2d(x, w, b torch.Tensor, stride, padding, dilation, groups int64) (torch.Tensor, error) {
	return fusedLayer("conv2d", []torch.Tensor{x, w, b}, func(p []unsafe.Pointer, out *unsafe.Pointer) *C.char {
		return C.hcunet_conv2d(p[0], p[1], p[2], C.int64_t(stride), C.int64_t(padding), C.int64_t(dilation), C.int64_t(groups), out)
	})
}

// MatMul returns the matrix product over the last two dimensions. Where autocast computes in
// bfloat16 on a CPU that has no instructions for it, it is computed in float32 and rounded.
func MatMul(a, b torch.Tensor) (torch.Tensor, error) {
	return fusedLayer("matmul", []torch.Tensor{a, b}, func(p []unsafe.Pointer, out *unsafe.Pointer) *C.char {
		return C.hcunet_matmul(p[0], p[1], out)
	})
}

// ConvReLU returns the ReLU of the convolution of x with w, which has an odd size, and the
// bias b, if it is not the zero torch.Tensor. The result has x's height and width and the
// given number of channels; those that w does not have are 0, and so are channels of x
// that w does not have.
func ConvReLU(x, w, b torch.Tensor, channels int64) (torch.Tensor, error) {
	return fusedLayer("conv_relu", []torch.Tensor{x, w, b}, func(p []unsafe.Pointer, out *unsafe.Pointer) *C.char {
		return C.hcunet_conv_relu(p[0], p[1], p[2], C.int64_t(channels), out)
	})
}

// Upsample returns the pixel shuffle by 2 of ConvReLU(x, w, b), averaged over 2x2 pixels if
// blur is set, then the channels of skip, then zeros up to the given number of channels.
func Upsample(x, w, b, skip torch.Tensor, channels int64, blur bool) (torch.Tensor, error) {
	return fusedLayer("upsample", []torch.Tensor{x, w, b, skip}, func(p []unsafe.Pointer, out *unsafe.Pointer) *C.char {
		return C.hcunet_upsample(p[0], p[1], p[2], p[3], C.int64_t(channels), cbool(blur), out)
	})
}

// UpsampleCPU is [Upsample] for maps for which [FusedCPU] is true and whose width is a
// multiple of 8. The result has the channels of the upsampled map and of skip, which may be
// the zero torch.Tensor. Its type is that of x, or bfloat16 if autocast is on; w, b and skip
// may be float32 in both cases.
func UpsampleCPU(x, w, b, skip torch.Tensor, blur bool) (torch.Tensor, error) {
	return fusedLayer("upsample", []torch.Tensor{x, w, b, skip}, func(p []unsafe.Pointer, out *unsafe.Pointer) *C.char {
		return C.hcunet_upsample_cpu(p[0], p[1], p[2], p[3], cbool(blur), out)
	})
}

// AddReLU overwrites y with x + max(y, 0) and returns it, for maps for which [FusedCPU] is
// true. Both have the same type. No backward pass may need the old y.
func AddReLU(x, y torch.Tensor) (torch.Tensor, error) {
	return fusedLayer("add_relu", []torch.Tensor{x, y}, func(p []unsafe.Pointer, out *unsafe.Pointer) *C.char {
		return C.hcunet_add_relu(p[0], p[1], out)
	})
}

// ResizeBilinear resizes x (N, C, H, W) with the outer edges aligned. On CUDA its gradient
// is faster than that of libtorch's operator, and the same in every run.
func ResizeBilinear(x torch.Tensor, height, width int64) (torch.Tensor, error) {
	return fusedLayer("upsample_bilinear2d", []torch.Tensor{x}, func(p []unsafe.Pointer, out *unsafe.Pointer) *C.char {
		return C.hcunet_resize_bilinear(p[0], C.int64_t(height), C.int64_t(width), out)
	})
}

// fusedLayer calls f with the handles of operands, nil for a zero torch.Tensor.
func fusedLayer(name string, operands []torch.Tensor, f func(p []unsafe.Pointer, out *unsafe.Pointer) *C.char) (torch.Tensor, error) {
	p := make([]unsafe.Pointer, len(operands))
	for i, t := range operands {
		if t.T == nil {
			continue
		}
		var err error
		if p[i], err = handle(t); err != nil {
			return torch.Tensor{}, &Error{name, err.Error()}
		}
	}
	var out unsafe.Pointer
	err := check(name, f(p, &out))
	runtime.KeepAlive(operands)
	if err != nil {
		return torch.Tensor{}, err
	}
	return wrap(out), nil
}
