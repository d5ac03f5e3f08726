package nn

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/hcunet/hcunet/internal/random"
	torch "github.com/wangkuiyi/gotorch"
)

// An Init makes the tensors of new layers. Initial values are drawn in Go and then
// moved to the device, so that they are the same on every device and with every
// version of libtorch.
type Init struct {
	Device Device
	DType  DType      // 0 means Float
	Rand   *rand.Rand // nil means the stream of NewInit with seed 0
	// Blank draws no random numbers and starts the kernels with zeros, for a network
	// whose weights will be loaded. On Meta this is always so.
	Blank bool

	zeros []float32 // shared by all kernels of a Blank Init
}

// NewInit returns an Init for float32 weights on d, drawn from the stream of seed.
// Further numbers, such as that of a fold, select one of several independent streams.
func NewInit(d Device, seed uint64, numbers ...uint64) *Init {
	return &Init{Device: d, DType: Float, Rand: random.New(seed, "weights", numbers...)}
}

// param makes a tensor with the given values, for which gradients are recorded.
func (in *Init) param(values []float32, shape ...int64) torch.Tensor {
	t := in.buffer(values, shape...)
	SetRequiresGrad(t, true)
	return t
}

func (in *Init) buffer(values []float32, shape ...int64) torch.Tensor {
	dtype := in.DType
	if dtype == 0 {
		dtype = Float
	}
	t, err := FromSlice(CPU, values, shape...)
	must(err)
	return To(t, in.Device, dtype)
}

// constant returns a slice of n elements v.
func constant(v float32, n int64) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// normal returns n normal random numbers of mean 0 and the given standard deviation.
// For a Blank Init and on Meta it returns zeros, because drawing 40 million numbers
// takes most of a second. They must not be changed: later calls return them too.
func (in *Init) normal(n int64, std float64) []float32 {
	if in.Blank || in.Device == Meta {
		if int64(len(in.zeros)) < n {
			in.zeros = make([]float32, n)
		}
		return in.zeros[:n:n]
	}
	if in.Rand == nil {
		in.Rand = NewInit(in.Device, 0).Rand
	}
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(in.Rand.NormFloat64() * std)
	}
	return s
}

// Kaiming is the distribution of a convolution's initial weights: normal with mean 0
// and variance 2/fan.
//
// Source: K. He et al. 2015, https://arxiv.org/abs/1502.01852.
type Kaiming int

const (
	FanIn  Kaiming = iota // fan = input channels * kernel area (fastai's layers)
	FanOut                // fan = output channels * kernel area (torchvision's ResNet)
)

func (in *Init) kaiming(k Kaiming, out, inC, kh, kw int64) []float32 {
	fan := inC * kh * kw
	if k == FanOut {
		fan = out * kh * kw
	}
	return in.kaimingFan(out*inC*kh*kw, fan)
}

func (in *Init) kaimingFan(n, fan int64) []float32 { return in.normal(n, math.Sqrt(2/float64(fan))) }

// checkWidths panics if a number of channels (or a kernel size or stride) is below 1.
// Only constructors call it, where such a number is a programming error.
func checkWidths(layer string, widths ...int64) {
	for _, w := range widths {
		if w < 1 {
			panic(fmt.Errorf("nn: %s: %v channels, wanted at least 1 each", layer, widths))
		}
	}
}
