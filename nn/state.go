package nn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	torch "github.com/wangkuiyi/gotorch"
)

// A Mismatch reports every difference between the tensors of a checkpoint and those of
// a module. Error names at most five of each kind.
type Mismatch struct {
	Missing []string // names in the module that the checkpoint lacks
	Extra   []string // names in the checkpoint that the module lacks
	// Misshape lists tensors in both whose shapes differ, as "name: [64 3 7 7], wanted
	// [64 1 7 7]", and tensors whose number of bytes does not fit their shape.
	Misshape []string
}

func (m *Mismatch) Error() string {
	var b strings.Builder
	b.WriteString("nn: the checkpoint does not fit the model:")
	for _, part := range []struct {
		what  string
		names []string
	}{{"missing", m.Missing}, {"extra", m.Extra}, {"of another shape", m.Misshape}} {
		if len(part.names) == 0 {
			continue
		}
		const most = 5 // largest number of names of each kind in the text
		fmt.Fprintf(&b, "\n%d %s: %s", len(part.names), part.what, strings.Join(part.names[:min(most, len(part.names))], ", "))
		if more := len(part.names) - most; more > 0 {
			fmt.Fprintf(&b, " and %d more", more)
		}
	}
	return b.String()
}

// LoadState copies the values of a checkpoint into m's own tensors, by name, and
// converts element types. Names and shapes must be the same on both sides. If they are
// not, nothing is copied and the error is a *[Mismatch]. Only num_batches_tracked may
// be missing, as it is in checkpoints from before PyTorch 0.4.1.
func LoadState(m Module, f *checkpoint.File) error {
	state := State(m)
	have := make(map[string]checkpoint.Tensor, len(f.Tensors))
	for _, t := range f.Tensors {
		have[t.Name] = t
	}
	var mismatch Mismatch
	wanted := make(map[string]bool, len(state))
	for _, n := range state {
		wanted[n.Name] = true
		t, ok := have[n.Name]
		if !ok {
			if !strings.HasSuffix(n.Name, ".num_batches_tracked") {
				mismatch.Missing = append(mismatch.Missing, n.Name)
			}
			continue
		}
		shape := intShape(Shape(n.Tensor))
		if !slices.Equal(t.Shape, shape) {
			mismatch.Misshape = append(mismatch.Misshape, fmt.Sprintf("%s: %v, wanted %v", n.Name, t.Shape, shape))
		} else if size := elements(shape) * t.DType.Size(); size == 0 || size != len(t.Data) {
			mismatch.Misshape = append(mismatch.Misshape, fmt.Sprintf("%s: %d bytes of %s, wanted %v of them", n.Name, len(t.Data), t.DType, shape))
		}
	}
	for _, t := range f.Tensors {
		if !wanted[t.Name] {
			mismatch.Extra = append(mismatch.Extra, t.Name)
		}
	}
	if len(mismatch.Missing)+len(mismatch.Extra)+len(mismatch.Misshape) > 0 {
		return &mismatch
	}
	var l stateLoader
	return Try(func() {
		for _, n := range state {
			if t, ok := have[n.Name]; ok {
				l.copyInto(n.Tensor, t)
			}
		}
	})
}

// SaveState returns a copy of m's state as a checkpoint, in the order and under the
// names of PyTorch's state dict. float32, float64, int64 and uint8 are kept; tensors of
// any other element type are saved as float32.
func SaveState(m Module) (*checkpoint.File, error) {
	f := &checkpoint.File{}
	for _, n := range State(m) {
		t, err := toCheckpoint(n.Name, n.Tensor)
		if err != nil {
			return nil, err
		}
		f.Tensors = append(f.Tensors, t)
	}
	return f, nil
}

func elements(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func intShape(shape []int64) []int {
	out := make([]int, len(shape))
	for i, d := range shape {
		out[i] = int(d)
	}
	return out
}

// A stateLoader copies tensors of a checkpoint, one at a time through the same memory.
type stateLoader struct {
	floats []float32
	ints   []int64
}

// copyInto overwrites a tensor with the values of t.
func (l *stateLoader) copyInto(to torch.Tensor, t checkpoint.Tensor) {
	Scope(func() {
		from, err := l.tensor(t)
		if err != nil {
			panic(&Error{Op: "load " + t.Name, Msg: err.Error()})
		}
		CopyInto(to, from)
	})
}

// tensor makes a tensor on the CPU. float32 and int64 are copied as they are; the other
// types are converted to float64, which holds their values exactly.
func (l *stateLoader) tensor(t checkpoint.Tensor) (torch.Tensor, error) {
	shape := make([]int64, len(t.Shape))
	for i, d := range t.Shape {
		shape[i] = int64(d)
	}
	switch t.DType {
	case checkpoint.F32:
		return fromBytes(&l.floats, t.Data, shape)
	case checkpoint.I64:
		return fromBytes(&l.ints, t.Data, shape)
	}
	values, err := t.Float64s()
	if err != nil {
		return torch.Tensor{}, err
	}
	return FromSlice(CPU, values, shape...)
}

func fromBytes[N float32 | int64](room *[]N, data []byte, shape []int64) (torch.Tensor, error) {
	var zero N
	*room = slices.Grow((*room)[:0], len(data)/binary.Size(zero))[:len(data)/binary.Size(zero)]
	if _, err := binary.Decode(data, binary.LittleEndian, *room); err != nil {
		return torch.Tensor{}, err
	}
	return FromSlice(CPU, *room, shape...)
}

func toCheckpoint(name string, t torch.Tensor) (checkpoint.Tensor, error) {
	var shape []int
	var dtype DType
	if err := Try(func() { shape, dtype = intShape(Shape(t)), DTypeOf(t) }); err != nil {
		return checkpoint.Tensor{}, err
	}
	switch dtype {
	case Long:
		return toBytes[int64](name, checkpoint.I64, t, shape)
	case Double:
		return toBytes[float64](name, checkpoint.F64, t, shape)
	case Byte:
		return toBytes[uint8](name, checkpoint.U8, t, shape)
	}
	return toBytes[float32](name, checkpoint.F32, t, shape)
}

func toBytes[N Number](name string, dtype checkpoint.DType, t torch.Tensor, shape []int) (checkpoint.Tensor, error) {
	values, err := Slice[N](t)
	if err != nil {
		return checkpoint.Tensor{}, err
	}
	var b bytes.Buffer
	b.Grow(len(values) * dtype.Size())
	if err := binary.Write(&b, binary.LittleEndian, values); err != nil {
		return checkpoint.Tensor{}, err
	}
	return checkpoint.Tensor{Name: name, DType: dtype, Shape: shape, Data: b.Bytes()}, nil
}
