package unet

import (
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// A block is one step of the decoder: it doubles the size of the previous, deeper map,
// concatenates it with the encoder's map of that size (the skip), and applies two
// convolutions.
//
// Source: fastai 1.0.54, vision/models/unet.py, UnetBlock.
type block struct {
	up           *nn.PixelShuffleICNR
	bn           *nn.BatchNorm2d
	conv1, conv2 *nn.ConvLayer
	relu         relu
}

// blockOptions are the optional settings of a block.
type blockOptions struct {
	final     bool // the last block, whose output has half of the concatenated channels
	noBlur    bool
	attention bool
	norm      nn.Norm
}

// newBlock returns a block for a deeper map of upC channels and a skip of skipC
// channels, and the block's number of output channels.
func newBlock(in *nn.Init, upC, skipC int64, opt blockOptions) (*block, int64) {
	joined := upC/2 + skipC
	outC := joined
	if opt.final {
		outC = joined / 2
	}
	return &block{
		up:    nn.NewPixelShuffleICNR(in, upC, upC/2, nn.PixelShuffleOptions{Norm: opt.norm, NoBlur: opt.noBlur}),
		bn:    nn.NewBatchNorm2d(in, skipC, &nn.BatchNormOptions{Bias: bnBias}),
		conv1: nn.NewConvLayer(in, joined, outC, 3, nn.ConvLayerOptions{Norm: opt.norm}),
		conv2: nn.NewConvLayer(in, outC, outC, 3, nn.ConvLayerOptions{Norm: opt.norm, SelfAttention: opt.attention}),
	}, outC
}

// Forward takes the deeper map x (N, upC, h, w) and the skip (N, skipC, 2h, 2w) and
// returns (N, C, 2h, 2w). If the encoder halved an odd size, the skip is smaller than
// 2h or 2w, and the upsampled map is resized to it.
func (b *block) Forward(mode nn.Mode, x, skip torch.Tensor) torch.Tensor {
	// fastai applies this ReLU to the concatenated map. The upsampled map is never
	// negative, so only the skip needs it.
	skip = b.relu.Forward(mode, b.bn.Forward(mode, skip))
	x = nn.Result(func() torch.Tensor { return b.conv1.Forward(mode, b.join(mode, x, skip)) })
	return b.conv2.Forward(mode, x)
}

// join returns the upsampled map and the skip as one map (N, upC/2 + skipC, 2h, 2w).
func (b *block) join(mode nn.Mode, x, skip torch.Tensor) torch.Tensor {
	have, want := nn.Shape(x), nn.Shape(skip)
	if 2*have[2] == want[2] && 2*have[3] == want[3] {
		return b.up.Join(mode, x, skip, false)
	}
	return nn.Cat(nn.ResizeNearest(b.up.Forward(mode, x), want[2], want[3]), skip)
}

func (b *block) Walk(w nn.Walker) {
	w.Child("shuf", b.up)
	w.Child("bn", b.bn)
	w.Child("conv1", b.conv1)
	w.Child("conv2", b.conv2)
	w.Child("relu", b.relu)
}

func (b *block) String() string { return "UnetBlock" }
