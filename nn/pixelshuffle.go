package nn

import (
	"math"

	torch "github.com/wangkuiyi/gotorch"
)

// A PixelShuffleICNR doubles the height and width of a feature map: a 1x1 convolution
// to four times the output channels, ReLU, pixel shuffle, and a 2x2 average, which
// blurs the checkerboard pattern that the shuffle may leave. The initial weights of
// the convolution are equal for the four channels that become one channel of a 2x2
// block of pixels (ICNR), so that at the start it acts as a nearest-neighbour resize.
//
// Sources: Shi et al. 2016, https://arxiv.org/abs/1609.05158; Aitken et al. 2017,
// https://arxiv.org/abs/1707.02937; fastai 1.0.54, layers.py, PixelShuffle_ICNR.
type PixelShuffleICNR struct {
	conv   *ConvLayer
	noBlur bool
}

// PixelShuffleOptions are the optional settings of a PixelShuffleICNR.
type PixelShuffleOptions struct {
	Norm   Norm // the normalization of the convolution
	NoBlur bool // leaves out the 2x2 average
}

// NewPixelShuffleICNR returns a layer from (N, inC, H, W) to (N, outC, 2H, 2W).
func NewPixelShuffleICNR(in *Init, inC, outC int64, opt PixelShuffleOptions) *PixelShuffleICNR {
	conv := NewConvLayer(in, inC, 4*outC, 1, ConvLayerOptions{Norm: opt.Norm, NoActivation: true, ICNR: 2})
	return &PixelShuffleICNR{conv, opt.NoBlur}
}

// Forward upsamples x.
func (p *PixelShuffleICNR) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	if p.fusesCPU(x) {
		return p.upsampleCPU(mode, x, torch.Tensor{})
	}
	// In the channels-last memory format, on the CPU, the shuffle is 3 times and the average
	// 12 times as fast as in the default format.
	x = ChannelsLast(x)
	x = ReLUInPlace(p.conv.Forward(mode, x)) // (N, 4C, H, W)
	x = call(opPixelShuffle, x, 2)           // (N, C, 2H, 2W)
	if p.noBlur {
		return x
	}
	return blur(x)
}

// blur averages each pixel with its neighbours to the left, above, and left above. In
// the first column and the first row, where neighbours are missing, fastai repeats the
// column and the row (ReplicationPad2d). Averaging only the neighbours that exist gives
// the same values and saves a pass over the map. The padded average has one row and one
// column too many, at the bottom and at the right; they are cut off.
func blur(x torch.Tensor) torch.Tensor {
	size := Shape(x)
	x = call(opAvgPool2d, x, []int64{2, 2}, []int64{1, 1}, []int64{1, 1}, false, false) // without ceil_mode and count_include_pad
	return Narrow(Narrow(x, 2, 0, size[2]), 3, 0, size[3])
}

// Walk shows the convolution, and the other steps under fastai's names.
func (p *PixelShuffleICNR) Walk(w Walker) {
	w.Child("conv", p.conv)
	w.Child("shuf", Leaf("PixelShuffle(upscale_factor=2)"))
	w.Child("pad", Leaf("ReplicationPad2d((1, 0, 1, 0))"))
	w.Child("blur", Leaf("AvgPool2d(kernel_size=2, stride=1, padding=0)"))
	w.Child("relu", Activation{InPlace: true})
}

func (p *PixelShuffleICNR) String() string { return "PixelShuffle_ICNR" }

// icnr draws Kaiming normal weights with the fan-in of the convolution, which are equal
// within each group of r*r consecutive output channels.
func (in *Init) icnr(out, inC, kernel, r int64) []float32 {
	row := inC * kernel * kernel
	groups := out / (r * r)
	base := in.normal(groups*row, math.Sqrt(2/float64(row)))
	values := make([]float32, 0, out*row)
	for g := range groups {
		for range r * r {
			values = append(values, base[g*row:(g+1)*row]...)
		}
	}
	return values
}
