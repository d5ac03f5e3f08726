// Package checkpoint reads and writes named tensors as files: safetensors in
// both directions, PyTorch's own formats for reading, and it fetches PyTorch's
// published weights. It is plain Go: a tensor here is a name, an element type, a
// shape and bytes, little endian and row-major.
//
// Files are not trusted. A reader allocates in proportion to the bytes that are
// there, never to what a header promises, and a pickle is read by a machine that
// knows containers, numbers, strings and tensors and can run nothing.
package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
)

// A DType is an element type by its safetensors name.
type DType string

// The element types of checkpoints. F8E4M3 and F8E5M2 are torch.float8_e4m3fn
// and torch.float8_e5m2, C64 is a pair of F32.
const (
	F64    DType = "F64"
	F32    DType = "F32"
	F16    DType = "F16"
	BF16   DType = "BF16"
	F8E4M3 DType = "F8_E4M3"
	F8E5M2 DType = "F8_E5M2"
	I64    DType = "I64"
	I32    DType = "I32"
	I16    DType = "I16"
	I8     DType = "I8"
	U64    DType = "U64"
	U32    DType = "U32"
	U16    DType = "U16"
	U8     DType = "U8"
	Bool   DType = "BOOL"
	C64    DType = "C64"
)

// Size returns the bytes per element, 0 for an unknown type.
func (d DType) Size() int {
	switch d {
	case F64, I64, U64, C64:
		return 8
	case F32, I32, U32:
		return 4
	case F16, BF16, I16, U16:
		return 2
	case F8E4M3, F8E5M2, I8, U8, Bool:
		return 1
	}
	return 0
}

// A Tensor is one named array: Data holds its elements, little endian, in
// row-major order. Tensors of one file may share memory where they did so in
// PyTorch; copy Data before changing it.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// A File is a checkpoint: its tensors in order, and what the writer noted.
type File struct {
	Tensors  []Tensor
	Metadata map[string]string // safetensors only
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

// A FormatError says that a file is broken, or is no file of that format.
type FormatError struct {
	Format string // "safetensors" or "pth"
	Offset int64  // in the file or the pickle, -1 where no place is to blame
	Reason string
}

func (e *FormatError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("checkpoint: %s: %s", e.Format, e.Reason)
	}
	return fmt.Sprintf("checkpoint: %s: at byte %d: %s", e.Format, e.Offset, e.Reason)
}

// An UnsupportedError says that a file holds something valid that this package
// does not read.
type UnsupportedError struct {
	Format string
	What   string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("checkpoint: %s: %s", e.Format, e.What)
}

// Open reads the checkpoint at path, whichever of the formats it has: the
// content decides, not the name. Of a PyTorch file it returns the state dict;
// see OpenTorch.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var head [9]byte
	n, err := io.ReadFull(f, head[:])
	f.Close()
	switch {
	case err != nil && n == 0:
		return nil, fmt.Errorf("%s: checkpoint: the file is empty or unreadable: %w", path, err)
	case bytes.HasPrefix(head[:n], []byte("PK\x03\x04")), head[0] == 0x80 && head[8] != '{':
		return OpenTorch(path, nil)
	}
	return OpenSafetensors(path)
}

// FromFloat32 returns a tensor that holds a copy of v.
func FromFloat32(name string, v []float32, shape ...int) Tensor {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return Tensor{Name: name, DType: F32, Shape: shape, Data: b}
}

// FromInt64 returns a tensor that holds a copy of v.
func FromInt64(name string, v []int64, shape ...int) Tensor {
	b := make([]byte, 8*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(x))
	}
	return Tensor{Name: name, DType: I64, Shape: shape, Data: b}
}

// Len returns the number of elements, 1 for a scalar.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Float32s returns the elements as float32; F64 and integers are rounded to the
// nearest. Complex and 8-bit floating types are an error.
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
	// Rounding twice, through float64, is exact for every other type but the
	// 64-bit integers beyond 2^53, where no weight lies.
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

// Float64s returns the elements as float64, whatever real type they have.
// Complex and 8-bit floating types are an error.
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
			return nil, fmt.Errorf("checkpoint: %q is %s, which has no conversion to real numbers here", t.Name, t.DType)
		}
	}
	return out, nil
}

// halfToFloat32 widens an IEEE 754 binary16 value, exactly: 1 sign bit, 5 bits
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

// check reports a shape that does not describe the data.
func (t Tensor) check() error {
	n, ok := byteSize(t.DType, t.Shape)
	switch {
	case t.DType.Size() == 0:
		return fmt.Errorf("checkpoint: %q has unknown element type %q", t.Name, t.DType)
	case !ok:
		return fmt.Errorf("checkpoint: %q has shape %v", t.Name, t.Shape)
	case n != len(t.Data):
		return fmt.Errorf("checkpoint: %q: shape %v of %s needs %d bytes, %d are there", t.Name, t.Shape, t.DType, n, len(t.Data))
	}
	return nil
}

// byteSize returns the bytes of a tensor; ok is false if a size is negative or
// the product does not fit an int.
func byteSize(d DType, shape []int) (n int, ok bool) {
	n = d.Size()
	for _, s := range shape {
		if s < 0 || (s > 0 && n > math.MaxInt/s) {
			return 0, false
		}
		n *= s
	}
	return n, true
}
