package nn

import (
	"github.com/hcunet/hcunet/network"
	torch "github.com/wangkuiyi/gotorch"
)

// A Norm is the kind of normalization in a block of layers; package network describes
// the constants.
type Norm = network.Norm

const (
	NormNone      = network.NormNone
	NormBatch     = network.NormBatch
	NormBatchZero = network.NormBatchZero
	NormWeight    = network.NormWeight
	NormSpectral  = network.NormSpectral
)

// ConvLayerOptions are the optional settings of a ConvLayer.
type ConvLayerOptions struct {
	Norm          Norm
	NoActivation  bool
	SelfAttention bool  // adds a SelfAttention at the end
	ICNR          int64 // see ConvOptions
}

// A ConvLayer is a convolution, followed, where the options ask for them, by ReLU,
// batch norm and self-attention, in this order.
//
// Source: fastai 1.0.54, layers.py, conv_layer.
type ConvLayer struct {
	Sequential
	Conv *Conv2d
}

// NewConvLayer returns a layer with stride 1 that keeps height and width; kernel is
// odd.
func NewConvLayer(in *Init, inC, outC, kernel int64, opt ConvLayerOptions) *ConvLayer {
	bn := opt.Norm == NormBatch || opt.Norm == NormBatchZero
	conv := NewConv2d(in, inC, outC, kernel, &ConvOptions{
		Padding: (kernel - 1) / 2, NoBias: bn, Norm: opt.Norm, ICNR: opt.ICNR,
	})
	l := &ConvLayer{Sequential{conv}, conv}
	if !opt.NoActivation {
		l.Sequential = append(l.Sequential, Activation{InPlace: true})
	}
	if bn {
		l.Sequential = append(l.Sequential, NewBatchNorm2d(in, outC, nil))
	}
	if opt.SelfAttention {
		l.Sequential = append(l.Sequential, NewSelfAttention(in, outC))
	}
	return l
}

// A ResBlock is a residual block: it adds the output of two convolution layers to its
// input. The shape stays the same.
//
// Source: fastai 1.0.54, layers.py, res_block.
type ResBlock struct{ conv1, conv2 *ConvLayer }

// NewResBlock returns a block of c channels; with bottle there are c/2 channels
// between its two convolutions.
func NewResBlock(in *Init, c int64, norm Norm, bottle bool) *ResBlock {
	inner := c
	if bottle {
		inner = c / 2
	}
	return &ResBlock{
		NewConvLayer(in, c, inner, 3, ConvLayerOptions{Norm: norm}),
		NewConvLayer(in, inner, c, 3, ConvLayerOptions{Norm: norm}),
	}
}

// Forward returns x + conv(conv(x)).
func (r *ResBlock) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	return r.conv2.addActivated(mode, x, r.conv1.Forward(mode, x))
}

// Walk shows the layers under the names of fastai's SequentialEx.
func (r *ResBlock) Walk(w Walker) { w.Child("layers", List{r.conv1, r.conv2, Leaf("MergeLayer()")}) }

func (r *ResBlock) String() string { return "SequentialEx" }
