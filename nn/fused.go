package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// On a GPU, under Autocast, some layers run as one step each: they read and write a map
// once, where the operators of the general path do so at every step. The results differ
// only by the rounding of float16 or bfloat16.
//
// These layers may widen a map: they add channels of zeros, because convolutions are two
// to three times as fast if the numbers of channels are multiples of 32. A layer that gets
// a widened map returns one. [PixelShuffleICNR.Join] makes them where it is asked to.

// fused reports whether x is a map for such layers.
func fused(x torch.Tensor) bool {
	yes, err := shim.Fused(x)
	must(err)
	return yes
}

// widened returns the number of channels of a map of c channels that was widened.
func widened(c int64) int64 { return (c + 31) / 32 * 32 }

// isWidened reports whether x is a widened map of c channels.
func isWidened(x torch.Tensor, c int64) bool {
	return widened(c) != c && Shape(x)[1] == widened(c) && fused(x)
}

var opPad = shim.NewOp("constant_pad_nd")

// padded returns x with zeros after the elements of its first two dimensions, or of its
// only one.
func padded(x torch.Tensor, first, second int64) torch.Tensor {
	if len(Shape(x)) == 1 {
		return call(opPad, x, []int64{0, first})
	}
	return call(opPad, x, []int64{0, 0, 0, 0, 0, second, 0, first})
}

// fit returns a kernel for the map x of c channels: w itself, or, if x was widened, w with
// zeros for its other channels.
func fit(x, w torch.Tensor, c int64) torch.Tensor {
	if isWidened(x, c) {
		return padded(w, 0, widened(c)-c)
	}
	return w
}

// fuses reports whether the convolution and the ReLU of l are one step for the map x.
func (l *ConvLayer) fuses(x torch.Tensor) bool {
	return l.activates() && fused(x) && (l.Conv.Out%8 == 0 || isWidened(x, l.Conv.In))
}

// activates reports whether a ReLU follows the convolution.
func (l *ConvLayer) activates() bool {
	if len(l.Sequential) < 2 {
		return false
	}
	_, is := l.Sequential[1].(Activation)
	return is
}

// Forward passes x through the layers.
func (l *ConvLayer) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	if !l.fuses(x) {
		return l.Sequential.Forward(mode, x)
	}
	l.Conv.checkInput(x)
	channels := l.Conv.Out
	if isWidened(x, l.Conv.In) {
		channels = widened(channels)
	}
	x = Result(func() torch.Tensor {
		y, err := shim.ConvReLU(x, l.Conv.Weight(mode), l.Conv.Bias, channels)
		must(err)
		return y
	})
	return l.Sequential[2:].Forward(mode, x)
}

// On a CPU with AVX2 the upsampling and the residual block are fused too, in float32 and in
// bfloat16: there they take less memory in training. As on a GPU, an upsampled map and a skip
// are joined in autocast's type; the general path joins them in the wider of their types.

// fusedCPU reports whether x is a map for such layers.
func fusedCPU(x torch.Tensor) bool {
	yes, err := shim.FusedCPU(x)
	must(err)
	return yes
}

// fusesCPU reports whether p, alone or with a concatenation, is one step for the map x.
func (p *PixelShuffleICNR) fusesCPU(x torch.Tensor) bool {
	const lanes = 8 // the width must be a multiple of this
	return len(p.conv.Sequential) == 1 && fusedCPU(x) && Shape(x)[3]%lanes == 0
}

// upsampleCPU returns the channels of Forward(mode, x) and after them those of skip, if it is
// not the zero torch.Tensor.
func (p *PixelShuffleICNR) upsampleCPU(mode Mode, x, skip torch.Tensor) torch.Tensor {
	p.conv.Conv.checkInput(x)
	y, err := shim.UpsampleCPU(x, p.conv.Conv.Weight(mode), p.conv.Conv.Bias, skip, !p.noBlur)
	must(err)
	return y
}

// addActivated returns x + l.Forward(mode, y).
func (l *ConvLayer) addActivated(mode Mode, x, y torch.Tensor) torch.Tensor {
	if len(l.Sequential) != 2 || !l.activates() || !fusedCPU(x) {
		return Add(x, l.Forward(mode, y))
	}
	y = l.Conv.Forward(mode, y)
	if !fusedCPU(y) || DTypeOf(x) != DTypeOf(y) { // libtorch chose another memory format, or autocast another type
		return Add(x, ReLUInPlace(y))
	}
	sum, err := shim.AddReLU(x, y)
	must(err)
	return sum
}

// Join returns the channels of Forward(mode, x) and after them those of skip (N, C, 2H, 2W).
// Under [Autocast] the result has autocast's type if the layer is fused, and otherwise the
// wider of that and skip's.
// If widen is set, the result may be widened by channels of zeros; then only convolutions of
// this package may follow, and no batch norm.
func (p *PixelShuffleICNR) Join(mode Mode, x, skip torch.Tensor, widen bool) torch.Tensor {
	if p.fusesCPU(x) {
		return p.upsampleCPU(mode, x, skip)
	}
	if len(p.conv.Sequential) > 1 || p.conv.Conv.Out%8 != 0 || !fused(x) {
		return Cat(p.Forward(mode, x), skip)
	}
	p.conv.Conv.checkInput(x)
	channels := p.conv.Conv.Out/4 + Shape(skip)[1]
	switch {
	case widen:
		channels = widened(channels)
	case channels%2 != 0:
		return Cat(p.Forward(mode, x), skip)
	}
	y, err := shim.Upsample(x, p.conv.Conv.Weight(mode), p.conv.Conv.Bias, skip, channels, !p.noBlur)
	must(err)
	return y
}
