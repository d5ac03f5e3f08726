// Package checkpoint reads and writes files of named tensors. It reads and
// writes safetensors, reads PyTorch's own formats, and downloads PyTorch's
// published weights. It is plain Go: a tensor is a name, an element type, a
// shape and bytes, little endian and row-major.
//
// Files are not trusted. A reader allocates memory in proportion to the bytes in
// the file, whatever a header says. The reader of pickles supports only
// containers, numbers, strings and tensors, and cannot run code.
package checkpoint

import (
	"fmt"
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

// A Tensor is one named array. Data holds its elements, little endian, in
// row-major order. Tensors of one file may share memory if they did so in
// PyTorch, so copy Data before you change it.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// A File is a checkpoint: its tensors in order, and its metadata.
type File struct {
	Tensors  []Tensor
	Metadata map[string]string // safetensors only

	// Digest is the SHA-256 in a safetensors file, as 64 hexadecimal digits,
	// which was checked when the file was read; "" if the file has none.
	// Writing ignores it, because every written file gets its own digest.
	Digest string
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

// A FormatError says that a file is broken, or does not have that format.
type FormatError struct {
	Format string // "safetensors" or "pth"
	Offset int64  // in the file or the pickle; -1 if the error has no position
	Reason string
}

func (e *FormatError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("checkpoint: %s: %s", e.Format, e.Reason)
	}
	return fmt.Sprintf("checkpoint: %s: at byte %d: %s", e.Format, e.Offset, e.Reason)
}

// An UnsupportedError says that a file holds something valid that this package
// cannot read.
type UnsupportedError struct {
	Format string
	What   string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("checkpoint: %s: %s", e.Format, e.What)
}

// Open reads the checkpoint at path in any of the formats. The content, not the
// name, tells the format. For a PyTorch file it returns the state dict; see
// OpenTorch. For another kind of file it returns a *KindError that names the
// kind.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	head, err := readHead(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case isZip(head), isTar(head), isTorchPickle(head):
		return OpenTorch(path, nil)
	case isSafetensors(head):
		return OpenSafetensors(path)
	}
	return nil, fmt.Errorf("%s: %w", path, unknownKind(head))
}

// Len returns the number of elements, 1 for a scalar.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// check returns an error if the shape does not match the data.
func (t Tensor) check() error {
	n, ok := byteSize(t.DType, t.Shape)
	switch {
	case t.DType.Size() == 0:
		return fmt.Errorf("checkpoint: %q has unknown element type %q", t.Name, t.DType)
	case !ok:
		return fmt.Errorf("checkpoint: %q has shape %v", t.Name, t.Shape)
	case n != len(t.Data):
		return fmt.Errorf("checkpoint: %q: shape %v of %s needs %d bytes, but it has %d", t.Name, t.Shape, t.DType, n, len(t.Data))
	}
	return nil
}

// byteSize returns the number of bytes of a tensor; ok is false if a size is
// negative or the product does not fit in an int.
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
