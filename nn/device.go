package nn

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// A Device is the CPU, a CUDA device or the meta device. The zero value is the CPU.
type Device struct {
	cuda  bool
	index int
	meta  bool
}

var (
	// CPU is the processor and its memory.
	CPU Device
	// Meta is a device whose tensors have shapes and element types but no values, which
	// therefore cannot be read. A training step on it shows, without a GPU, whether an
	// operand is on the wrong device. libtorch 1.13 has no meta kernels for
	// convolutions, norms and optimizer steps, so they take as long as on the CPU.
	Meta = Device{meta: true}
)

// ParseDevice reads "cpu", "cuda:N" with N from 0, "cuda" for "cuda:0", or "auto" for
// the first CUDA device if there is one and the CPU otherwise. A CUDA device that does
// not exist is an error.
func ParseDevice(s string) (Device, error) {
	n := shim.CUDADevices()
	switch s {
	case "cpu":
		return CPU, nil
	case "auto":
		return Device{cuda: n > 0}, nil
	case "cuda":
		s = "cuda:0"
	}
	number, ok := strings.CutPrefix(s, "cuda:")
	index, err := strconv.Atoi(number)
	if !ok || err != nil || index < 0 {
		return CPU, fmt.Errorf("nn: device %q, wanted auto, cpu, cuda or cuda:N", s)
	}
	if index >= n {
		return CPU, fmt.Errorf("nn: device %s was asked for, but libtorch %s finds %d CUDA devices; use cpu, or a libtorch with CUDA",
			s, shim.Version(), n)
	}
	return Device{cuda: true, index: index}, nil
}

// String returns "cpu", "cuda:N" or "meta".
func (d Device) String() string {
	if d.meta {
		return "meta"
	}
	if !d.cuda {
		return "cpu"
	}
	return "cuda:" + strconv.Itoa(d.index)
}

// CUDA reports whether d is a CUDA device.
func (d Device) CUDA() bool { return d.cuda }

// Synchronize waits until a CUDA device has done all its work; for other devices it
// returns at once.
func (d Device) Synchronize() error {
	if !d.cuda {
		return nil
	}
	return shim.Synchronize(d.index)
}

func (d Device) arg() shim.Device { return shim.Device{CUDA: d.cuda, Index: d.index, Meta: d.meta} }

// A DType is an element type of a tensor.
type DType int8

// The element types, with gotorch's numbers. Networks and their inputs are Float
// unless something else is said.
const (
	Byte     = DType(torch.Byte)
	Short    = DType(torch.Short)
	Long     = DType(torch.Long)
	Half     = DType(torch.Half)
	Float    = DType(torch.Float)
	Double   = DType(torch.Double)
	Bool     = DType(torch.Bool)
	BFloat16 = DType(torch.BFloat16)
)

// String returns PyTorch's name of the type, such as "float32".
func (d DType) String() string {
	switch d {
	case Byte:
		return "uint8"
	case Short:
		return "int16"
	case Long:
		return "int64"
	case Half:
		return "float16"
	case Float:
		return "float32"
	case Double:
		return "float64"
	case Bool:
		return "bool"
	case BFloat16:
		return "bfloat16"
	}
	return fmt.Sprintf("DType(%d)", int8(d))
}
