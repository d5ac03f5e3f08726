package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
)

// FromFloat32 returns a tensor of type F32 that holds a copy of v.
func FromFloat32(name string, v []float32, shape ...int) Tensor {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return Tensor{Name: name, DType: F32, Shape: shape, Data: b}
}

// FromInt64 returns a tensor of type I64 that holds a copy of v.
func FromInt64(name string, v []int64, shape ...int) Tensor {
	b := make([]byte, 8*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(x))
	}
	return Tensor{Name: name, DType: I64, Shape: shape, Data: b}
}

// Float32s returns the elements as float32; F64 and integers are rounded to
// nearest. It returns an error for complex and 8-bit floating types.
func (t Tensor) Float32s() ([]float32, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	if t.DType == F32 {
		out := make([]float32, len(t.Data)/4)
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
		}
		return out, nil
	}
	// Rounding twice, through float64, gives the same result as rounding once,
	// except for 64-bit integers above 2^53, which weights do not have.
	wide, err := t.Float64s()
	if err != nil {
		return nil, err
	}
	out := make([]float32, len(wide))
	for i, v := range wide {
		out[i] = float32(v)
	}
	return out, nil
}

// Float64s returns the elements as float64, from any real type. It returns an
// error for complex and 8-bit floating types.
func (t Tensor) Float64s() ([]float64, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	out := make([]float64, len(t.Data)/t.DType.Size())
	le := binary.LittleEndian
	for i := range out {
		switch t.DType {
		case F64:
			out[i] = math.Float64frombits(le.Uint64(t.Data[8*i:]))
		case F32:
			out[i] = float64(math.Float32frombits(le.Uint32(t.Data[4*i:])))
		case F16:
			out[i] = float64(halfToFloat32(le.Uint16(t.Data[2*i:])))
		case BF16:
			out[i] = float64(math.Float32frombits(uint32(le.Uint16(t.Data[2*i:])) << 16))
		case I64:
			out[i] = float64(int64(le.Uint64(t.Data[8*i:])))
		case I32:
			out[i] = float64(int32(le.Uint32(t.Data[4*i:])))
		case I16:
			out[i] = float64(int16(le.Uint16(t.Data[2*i:])))
		case I8:
			out[i] = float64(int8(t.Data[i]))
		case U64:
			out[i] = float64(le.Uint64(t.Data[8*i:]))
		case U32:
			out[i] = float64(le.Uint32(t.Data[4*i:]))
		case U16:
			out[i] = float64(le.Uint16(t.Data[2*i:]))
		case U8, Bool:
			out[i] = float64(t.Data[i])
		default:
			return nil, fmt.Errorf("checkpoint: %q is %s, which cannot be converted to real numbers here", t.Name, t.DType)
		}
	}
	return out, nil
}

// halfToFloat32 converts an IEEE 754 binary16 value exactly: 1 sign bit, 5 bits
// of exponent with bias 15, 10 bits of fraction.
func halfToFloat32(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exponent := uint32(h>>10) & 0x1f
	fraction := uint32(h) & 0x3ff
	switch exponent {
	case 0: // zero and subnormal: fraction * 2^-24
		v := float32(fraction) / (1 << 24)
		return math.Float32frombits(sign | math.Float32bits(v))
	case 0x1f: // infinity and NaN
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// As returns the tensor converted to type d, one of F64, F32, F16 and BF16.
// Values are rounded to nearest, ties to even, and values that are too large
// become infinite, as in torch.Tensor.to. The result is a copy, or t itself if t
// already has the type. As returns an error for complex and 8-bit floating
// types.
func (t Tensor) As(d DType) (Tensor, error) {
	if err := t.check(); err != nil {
		return Tensor{}, err
	}
	if t.DType == d {
		return t, nil
	}
	switch d {
	case F64, F32, F16, BF16:
	default:
		return Tensor{}, fmt.Errorf("checkpoint: %q cannot become %s; wanted F64, F32, F16 or BF16", t.Name, d)
	}
	v, err := t.Float64s()
	if err != nil {
		return Tensor{}, err
	}
	out := Tensor{Name: t.Name, DType: d, Shape: t.Shape, Data: make([]byte, 0, len(v)*d.Size())}
	le := binary.LittleEndian
	for _, x := range v {
		switch d {
		case F64:
			out.Data = le.AppendUint64(out.Data, math.Float64bits(x))
		case F32:
			out.Data = le.AppendUint32(out.Data, math.Float32bits(float32(x)))
		case F16:
			out.Data = le.AppendUint16(out.Data, round16(x, 10, 15))
		case BF16:
			out.Data = le.AppendUint16(out.Data, round16(x, 7, 127))
		}
	}
	return out, nil
}

// round16 returns the nearest 16-bit float with that many fraction bits and
// that exponent bias, ties to even: (10, 15) is binary16, (7, 127) is bfloat16.
func round16(x float64, fraction, bias int) uint16 {
	sign := uint16(math.Float64bits(x) >> 63 << 15)
	infinity := uint16(2*bias+1) << fraction
	switch {
	case math.IsNaN(x):
		return sign | infinity | 1<<(fraction-1)
	case math.IsInf(x, 0):
		return sign | infinity
	case x == 0:
		return sign
	}
	// The smallest step at |x| is a power of two. Subnormal values have the
	// step of the lowest exponent. So rounding x is rounding the number of
	// steps to an integer.
	_, e := math.Frexp(x) // |x| = f * 2^e, f in [0.5, 1)
	e = max(e-1, 1-bias)
	steps := math.RoundToEven(math.Ldexp(math.Abs(x), fraction-e)) // at most 2^(fraction+1)
	// For normal values, steps is at least 2^fraction, which adds one to the
	// exponent field; a carry from rounding adds another.
	bits := steps + float64(e+bias-1)*float64(int(1)<<fraction)
	if bits >= float64(infinity) {
		return sign | infinity
	}
	return sign | uint16(bits)
}
