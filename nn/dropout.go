package nn

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// A Dropout sets random elements of its input to zero in training and divides the
// others by 1 - P; in evaluation it changes nothing.
//
// The masks depend on the numbers of the last call of [SeedDropout] and on how often
// the layer was used in Train since then. A program that calls SeedDropout with the
// number of each step can therefore repeat the masks of any step without saving any
// state.
//
// Source: Srivastava et al. 2014, JMLR 15; torch.nn.Dropout and Dropout2d.
type Dropout struct {
	P        float64 // in [0, 1): the probability that an element is dropped
	Channels bool    // drop whole channels of an image instead of single elements
	stream   *rand.Rand
}

// NewDropout returns a layer that drops elements with probability p. It panics unless
// p is in [0, 1).
func NewDropout(p float64) *Dropout {
	if !(p >= 0 && p < 1) {
		panic(fmt.Errorf("nn: Dropout: probability %v, wanted at least 0 and below 1", p))
	}
	return &Dropout{P: p, stream: random.New(0, "dropout")}
}

// SeedDropout gives every Dropout in m its own stream of masks. The stream depends on
// the seed, on further numbers such as fold and step, and on the layer's position in m.
func SeedDropout(m Module, seed uint64, numbers ...uint64) {
	place := uint64(0)
	Each(m, func(m Module) {
		if d, ok := m.(*Dropout); ok {
			d.stream = random.New(seed, "dropout", append(numbers[:len(numbers):len(numbers)], place)...)
			place++
		}
	})
}

var (
	opBernoulli = shim.NewOp("bernoulli.p")
	opOnes      = shim.NewOp("ones")

	generator sync.Mutex // guards libtorch's random number generators, which all threads share
)

// Forward drops elements of x in Train.
func (d *Dropout) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	if mode == Eval || d.P == 0 {
		return x
	}
	shape := Shape(x)
	if d.Channels {
		for i := 2; i < len(shape); i++ {
			shape[i] = 1
		}
	}
	mask := call(opOnes, shape, int(DTypeOf(x)), shim.None{}, DeviceOf(x).arg())
	seed := d.stream.Uint64()
	func() {
		generator.Lock()
		defer generator.Unlock()
		must(shim.Seed(seed))
		mask = call(opBernoulli, mask, 1-d.P)
	}()
	return Mul(x, MulScalar(mask, 1/(1-d.P)))
}

// Walk shows nothing.
func (*Dropout) Walk(Walker) {}

func (d *Dropout) String() string {
	if d.Channels {
		return fmt.Sprintf("Dropout2d(p=%v)", d.P)
	}
	return fmt.Sprintf("Dropout(p=%v)", d.P)
}
