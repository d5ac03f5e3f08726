package doctor

import (
	"fmt"
	"slices"
	"time"

	"github.com/hcunet/hcunet/nn"
)

// selfTest computes something whose answer is known, forward and backward, and then
// measures the speed of a convolution for the rest of a second.
func selfTest() Finding {
	f := Finding{Part: "self-test"}
	err := nn.Try(func() { nn.Scope(func() { f.Is, f.State = known() }) })
	if err == nil && f.State == Good {
		var speed float64
		err = nn.Try(func() { nn.Scope(func() { nn.NoGrad(func() { speed = convolve(time.Second) }) }) })
		f.Is = fmt.Sprintf("right; a 3x3 convolution of 64 channels runs at %.0f GFLOP/s", speed/1e9)
	}
	if err != nil {
		f.State, f.Is = Wrong, err.Error()
	}
	if f.State == Wrong {
		f.Remedy = "libtorch does not compute what it should: build anew with go clean -cache, or take another libtorch (README, Install)"
	}
	return f
}

// known convolves 1, 2, 3, 4 in two rows with a kernel of ones, padded by one: each
// output is the sum of all, 10. The gradient of their sum is, for the middle of the
// kernel, which sees every input once, 10, and for its upper left corner, which sees
// the first input alone, 1.
func known() (is string, state State) {
	x := must(nn.FromSlice(nn.CPU, []float32{1, 2, 3, 4}, 1, 1, 2, 2))
	w := must(nn.FromSlice(nn.CPU, []float32{1, 1, 1, 1, 1, 1, 1, 1, 1}, 1, 1, 3, 3))
	nn.SetRequiresGrad(w, true)
	none := nn.Zeros(nn.CPU, nn.Float, 1)
	y := nn.Conv(x, w, none, 1, 1)
	if err := nn.Backward(nn.Sum(y)); err != nil {
		return err.Error(), Wrong
	}
	grad, ok := nn.Grad(w)
	if !ok {
		return "the backward pass left no gradient", Wrong
	}
	out, slope := must(nn.Slice[float32](y)), must(nn.Slice[float32](grad))
	wantOut, wantSlope := []float32{10, 10, 10, 10}, []float32{1, 3, 2, 4, 10, 6, 3, 7, 4}
	if !slices.Equal(out, wantOut) || !slices.Equal(slope, wantSlope) {
		return fmt.Sprintf("a convolution gives %v with the gradient %v; right are %v and %v", out, slope, wantOut, wantSlope), Wrong
	}
	return "right", Good
}

// convolve returns how many floating-point operations a second it could do, for at
// most about that long.
func convolve(most time.Duration) float64 {
	const channels, side = 64, 128
	conv := nn.NewConv2d(nn.NewInit(nn.CPU, 1), channels, channels, 3, &nn.ConvOptions{Padding: 1, NoBias: true})
	x := nn.Full(nn.CPU, nn.Float, 1, 1, channels, side, side)
	conv.Forward(nn.Eval, x) // the first one also prepares
	start, n := time.Now(), 0
	for n == 0 || time.Since(start) < most*3/4 {
		nn.Scope(func() { conv.Forward(nn.Eval, x) })
		n++
	}
	return float64(n) * 2 * 9 * channels * channels * side * side / time.Since(start).Seconds()
}

// must panics with libtorch's error, for nn.Try to catch.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
