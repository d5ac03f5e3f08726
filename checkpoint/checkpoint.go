// Package checkpoint reads and writes named tensors as files: safetensors in
// both directions, PyTorch's pickles for reading. It is plain Go: a tensor here
// is a name, an element type, a shape and bytes, little endian and row-major.
package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A DType is an element type by its safetensors name.
type DType string

// The element types that occur in checkpoints of segmentation models.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U8   DType = "U8"
	Bool DType = "BOOL"
)

// Size returns the bytes per element, 0 for an unknown type.
func (d DType) Size() int {
	switch d {
	case F64, I64:
		return 8
	case F32, I32:
		return 4
	case F16, BF16, I16:
		return 2
	case I8, U8, Bool:
		return 1
	}
	return 0
}

// A Tensor is one named array: Data holds its elements, little endian, in
// row-major order.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// A File is a checkpoint: its tensors in order, and what the writer noted.
type File struct {
	Tensors  []Tensor
	Metadata map[string]string
}

// Lookup returns the tensor of that name.
func (f *File) Lookup(name string) (Tensor, bool) {
	for _, t := range f.Tensors {
		if t.Name == name {
			return t, true
		}
	}
	return Tensor{}, false
}

// FromFloat32 returns a tensor that holds a copy of v.
func FromFloat32(name string, v []float32, shape ...int) Tensor {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return Tensor{Name: name, DType: F32, Shape: shape, Data: b}
}

// Float64s returns the elements as float64, whatever numeric type they have.
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
		case I64:
			out[i] = float64(int64(le.Uint64(t.Data[8*i:])))
		case I32:
			out[i] = float64(int32(le.Uint32(t.Data[4*i:])))
		case I16:
			out[i] = float64(int16(le.Uint16(t.Data[2*i:])))
		case I8:
			out[i] = float64(int8(t.Data[i]))
		case U8, Bool:
			out[i] = float64(t.Data[i])
		case BF16:
			out[i] = float64(math.Float32frombits(uint32(le.Uint16(t.Data[2*i:])) << 16))
		default:
			return nil, fmt.Errorf("checkpoint: %q is %s, which Float64s does not convert", t.Name, t.DType)
		}
	}
	return out, nil
}

// check reports a shape that does not describe the data.
func (t Tensor) check() error {
	size := t.DType.Size()
	if size == 0 {
		return fmt.Errorf("checkpoint: %q has unknown element type %q", t.Name, t.DType)
	}
	n := size
	for _, d := range t.Shape {
		if d < 0 || (d > 0 && n > math.MaxInt/d) {
			return fmt.Errorf("checkpoint: %q has shape %v", t.Name, t.Shape)
		}
		n *= d
	}
	if n != len(t.Data) {
		return fmt.Errorf("checkpoint: %q: shape %v of %s needs %d bytes, %d are there", t.Name, t.Shape, t.DType, n, len(t.Data))
	}
	return nil
}
