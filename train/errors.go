package train

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// badNumber is the error for a value that is not finite.
type badNumber struct {
	what  string
	value float64
}

func (b *badNumber) Error() string {
	return fmt.Sprintf("%s is %v; lower the learning rate, or look at the images with data.Check", b.what, b.value)
}

// films names the images of a batch, some of them if there are many.
func films(source feed.Source, b *feed.Batch) string {
	const most = 20
	if b.Indices == nil {
		return fmt.Sprintf("%d images", b.N)
	}
	names := make([]string, 0, most)
	for _, i := range b.Indices[:min(len(b.Indices), most)] {
		names = append(names, source.Name(i))
	}
	text := "images " + strings.Join(names, ", ")
	if more := len(b.Indices) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// inScope runs f in a scope and returns an error of libtorch, with advice if
// memory is missing.
func (l *Learner) inScope(b *feed.Batch, f func()) error {
	return outOfMemory(nn.Try(func() { nn.Scope(f) }), b)
}

// outOfMemory turns an error of libtorch about memory into a MemoryError. Only the text
// of libtorch's error shows it: c10/cuda/CUDACachingAllocator.cpp,
// c10/core/impl/alloc_cpu.cpp, internal/shim/memory.h.
func outOfMemory(err error, b *feed.Batch) error {
	var native *nn.Error
	if !errors.As(err, &native) || !strings.Contains(native.Msg, "out of memory") && !strings.Contains(native.Msg, "can't allocate memory") && !strings.Contains(native.Msg, "not enough memory") {
		return err
	}
	return &MemoryError{Images: b.N, Height: b.H, Width: b.W, Err: err}
}

// A MemoryError says that there was not enough memory to compute a batch.
type MemoryError struct {
	Images, Height, Width int // of the batch

	Err error // the error of libtorch
}

func (e *MemoryError) Error() string {
	what, advice := "one image", "take smaller images or a smaller network"
	if e.Images > 1 {
		what = fmt.Sprintf("a batch of %d images", e.Images)
		advice = fmt.Sprintf("try batches of %d (feed.LoaderOptions.Batch) and twice as many a step (Config.MicroBatches)", (e.Images+1)/2)
	}
	return fmt.Sprintf("no memory for %s of %dx%d; %s: %v", what, e.Height, e.Width, advice, e.Err)
}

func (e *MemoryError) Unwrap() error { return e.Err }

// item returns the value of a tensor of one element, for use inside nn.Try. On the
// meta device there is no value, and it returns 0.
func item(t torch.Tensor) float64 {
	if nn.DeviceOf(t) == nn.Meta {
		return 0
	}
	v, err := nn.Item(t)
	if err != nil {
		panic(err)
	}
	return v
}

// slice returns the elements of t, for use inside nn.Try.
func slice(t torch.Tensor) []float32 {
	v, err := nn.Slice[float32](t)
	if err != nil {
		panic(err)
	}
	return v
}
