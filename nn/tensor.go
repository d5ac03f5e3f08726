package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// A Number is an element type that exists both in Go and in libtorch.
type Number = shim.Number

// FromSlice returns a new tensor of the given shape on d with the elements of data in
// row-major order. It is an error if len(data) does not fit the shape.
func FromSlice[N Number](d Device, data []N, shape ...int64) (torch.Tensor, error) {
	return shim.FromSlice(data, d.arg(), shape...)
}

// Slice returns a copy of the elements of t in row-major order, converted to N. The
// tensor may be on any device that has values, so not on [Meta].
func Slice[N Number](t torch.Tensor) ([]N, error) { return shim.Slice[N](t) }

// A Reading is a copy of a tensor's values that is on its way from a device.
type Reading[N Number] struct{ r *shim.Reading[N] }

// BeginRead asks for the values of t, converted to N, as they are after the operations that
// its device was given so far. It does not wait for them, so that the device can be given
// more.
func BeginRead[N Number](t torch.Tensor) (*Reading[N], error) {
	r, err := shim.BeginRead[N](t)
	if err != nil {
		return nil, err
	}
	return &Reading[N]{r}, nil
}

// Values waits for the values, row-major, and for no operation that was asked for after
// BeginRead. It or CopyTo must be called once; that frees the copy.
func (r *Reading[N]) Values() ([]N, error) { return r.r.Values() }

// CopyTo is Values into data, which must have as many elements as the tensor. Into memory that
// was used before it takes less time than Values.
func (r *Reading[N]) CopyTo(data []N) error { return r.r.CopyTo(data) }

// Item returns the value of a tensor of one element. A tensor with more or fewer
// elements is an error.
func Item(t torch.Tensor) (float64, error) {
	var v [1]float64
	err := shim.ToSlice(t, v[:])
	return v[0], err
}

// Shape returns the extent of each dimension of t.
func Shape(t torch.Tensor) []int64 { return inspect(t).Shape }

// DeviceOf returns the device of t.
func DeviceOf(t torch.Tensor) Device {
	d := inspect(t).Device
	return Device{cuda: d.CUDA, index: d.Index, meta: d.Meta}
}

// DTypeOf returns the element type of t.
func DTypeOf(t torch.Tensor) DType { return DType(inspect(t).DType) }

// RequiresGrad reports whether gradients are recorded for t.
func RequiresGrad(t torch.Tensor) bool { return inspect(t).RequiresGrad }

// SetRequiresGrad switches the recording of gradients for t on or off. t is a
// parameter, not the result of a recorded operation.
func SetRequiresGrad(t torch.Tensor, on bool) { must(shim.SetRequiresGrad(t, on)) }

func inspect(t torch.Tensor) shim.Info {
	info, err := shim.Inspect(t)
	must(err)
	return info
}

// Backward computes the gradient of loss, a tensor of one element, with respect to
// every parameter that loss depends on, and adds it to the parameter's gradient. The
// recorded operations are freed, so it can be called once for each forward pass.
func Backward(loss torch.Tensor) error { return shim.Backward(loss, false) }

// Grad returns the gradient of t, not a copy; ok is false where t has none.
func Grad(t torch.Tensor) (grad torch.Tensor, ok bool) {
	g, ok, err := shim.Grad(t)
	must(err)
	return g, ok
}

// Zeros returns a tensor of zeros.
func Zeros(d Device, dtype DType, shape ...int64) torch.Tensor {
	return call(opZeros, shape, int(dtype), shim.None{}, d.arg())
}

// Full returns a tensor filled with v.
func Full(d Device, dtype DType, v float64, shape ...int64) torch.Tensor {
	return call(opFull, shape, v, int(dtype), shim.None{}, d.arg())
}

// To returns t on device d with the element type dtype. The result shares its memory
// with t where t already has both.
func To(t torch.Tensor, d Device, dtype DType) torch.Tensor {
	return call(opTo, t, d.arg(), int(dtype))
}

// CopyInto overwrites the values of dst with those of src, converted to the element
// type and moved to the device of dst. It is not recorded for a backward pass.
func CopyInto(dst, src torch.Tensor) {
	NoGrad(func() { call(opCopy, dst, src) })
}

var (
	opZeros = shim.NewOp("zeros")
	opFull  = shim.NewOp("full")
	opTo    = shim.NewOp("to.device")
	opCopy  = shim.NewOp("copy_")
)

// call runs an operator that returns one tensor.
func call(op *shim.Op, args ...any) torch.Tensor {
	out, err := op.Call(args...)
	must(err)
	return out[0]
}

// run runs an operator for its effect.
func run(op *shim.Op, args ...any) {
	_, err := op.Call(args...)
	must(err)
}
