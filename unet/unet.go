// Package unet implements the U-Net (Ronneberger et al. 2015,
// https://arxiv.org/abs/1505.04597) that fastai 1.0.54 builds on an encoder, with
// pixel-shuffle upsampling and a hypercolumn head.
//
// On a ResNet-34 with its defaults a [Net] is the network of the notebook
// "Hypercolumns pneumothorax fastai": the same 43,232,353 parameters under the
// same names, and the same outputs for the same weights.
package unet

import (
	"fmt"
	"strings"

	"github.com/hcunet/hcunet/hypercolumn"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// An Encoder maps an image to maps at falling sizes. *resnet.Encoder is one.
type Encoder interface {
	nn.Module
	// InChannels returns the number of channels of an image.
	InChannels() int64
	// Features returns maps at 1/2, 1/4, 1/8, ... of the image's size.
	Features(mode nn.Mode, x torch.Tensor) []torch.Tensor
	// Channels returns the widths of these maps.
	Channels() []int64
	// Late says whether the tensor of that name in the encoder's state belongs to
	// its second layer group, which learns faster than the first.
	Late(name string) bool
}

// A Blur says which upsampling steps end in a 2x2 average.
type Blur int

const (
	BlurAll   Blur = iota // every step, as fastai 1.0.54 does whatever it is asked for
	BlurInner             // all but the last block and the final upsampling
	BlurNone              // none
)

// Config are the choices of a network. The zero value is the notebook's network
// for two classes, with gradients through the skips.
type Config struct {
	Classes        int64       // 0 means 2: background and foreground
	NoHypercolumns bool        // a plain U-Net: fastai's DynamicUnet
	Blur           Blur        // which upsampling steps blur
	SelfAttention  bool        // self-attention in the second block
	NoLastCross    bool        // no joining of the image itself, and no residual block, at the end
	Bottle         bool        // half the width inside the last residual block
	YRange         *[2]float64 // a sigmoid into this range at the end; nil for none
	Norm           nn.Norm     // of the decoder's convolutions
	DetachSkips    bool        // no gradient through the skip connections, as in fastai 1.0.54
}

const bnBias = 1e-3 // fastai 1.0.54, layers.py, batchnorm_2d

// A Net is a U-Net.
type Net struct {
	encoder Encoder
	detach  bool
	bn      *nn.BatchNorm2d
	middle  nn.Sequential
	blocks  []*block
	up      *nn.PixelShuffleICNR
	cross   *nn.ResBlock         // nil without the last cross
	columns *hypercolumn.Columns // nil for a plain U-Net
	final   *nn.ConvLayer
	rng     *nn.SigmoidRange // nil without a range
	layers  nn.List          // all of them, in fastai's order
}

// New returns a network on encoder with random weights.
func New(in *nn.Init, encoder Encoder, cfg Config) *Net {
	classes := cfg.Classes
	if classes == 0 {
		classes = 2
	}
	widths := encoder.Channels()
	c := widths[len(widths)-1]
	net := &Net{
		encoder: encoder,
		detach:  cfg.DetachSkips,
		bn:      nn.NewBatchNorm2d(in, c, &nn.BatchNormOptions{Bias: bnBias}),
		middle: nn.Sequential{
			nn.NewConvLayer(in, c, 2*c, 3, nn.ConvLayerOptions{Norm: cfg.Norm}),
			nn.NewConvLayer(in, 2*c, c, 3, nn.ConvLayerOptions{Norm: cfg.Norm}),
		},
	}
	net.layers = nn.List{encoder, net.bn, nn.Activation{}, net.middle}

	skips := len(widths) - 1
	maps := []int64{c}
	for i := range skips {
		final := i == skips-1
		noBlur := cfg.Blur == BlurNone || final && cfg.Blur == BlurInner
		attention := cfg.SelfAttention && i == skips-3
		var b *block
		b, c = newBlock(in, c, widths[skips-1-i], final, noBlur, attention, cfg.Norm)
		net.blocks = append(net.blocks, b)
		net.layers = append(net.layers, b)
		maps = append(maps, c)
	}
	net.up = nn.NewPixelShuffleICNR(in, c, c, cfg.Norm, cfg.Blur != BlurAll)
	net.layers = append(net.layers, net.up)
	if !cfg.NoLastCross {
		c += encoder.InChannels()
		net.cross = nn.NewResBlock(in, c, cfg.Norm, cfg.Bottle)
		net.layers = append(net.layers, nn.Leaf("MergeLayer()"), net.cross)
	}
	if !cfg.NoHypercolumns {
		net.columns = hypercolumn.New(in, maps, c)
		net.layers = append(net.layers, net.columns)
		c = net.columns.Width()
	}
	net.final = nn.NewConvLayer(in, c, classes, 1, nn.ConvLayerOptions{Norm: cfg.Norm, NoActivation: true})
	net.layers = append(net.layers, net.final)
	if cfg.YRange != nil {
		net.rng = &nn.SigmoidRange{Low: cfg.YRange[0], High: cfg.YRange[1]}
		net.layers = append(net.layers, net.rng)
	}
	return net
}

// Forward returns the class scores (N, Classes, H, W) of images (N, C, H, W).
// With hypercolumns H and W must be multiples of 32, otherwise even; see
// [Net.CheckSize]. It panics where libtorch refuses; [nn.Try] makes that an error.
func (n *Net) Forward(mode nn.Mode, image torch.Tensor) torch.Tensor {
	features := n.encoder.Features(mode, image)
	last := len(features) - 1
	x := nn.ReLUInPlace(n.bn.Forward(mode, features[last])) // (N, 512, H/32, W/32)
	x = n.middle.Forward(mode, x)
	maps := []torch.Tensor{x}
	for i, b := range n.blocks {
		skip := features[last-1-i]
		if n.detach {
			skip = nn.Detach(skip)
		}
		x = b.Forward(mode, x, skip)
		maps = append(maps, x)
	}
	x = n.up.Forward(mode, x) // (N, 96, H, W)
	if n.cross != nil {
		x = n.cross.Forward(mode, nn.Cat(x, image)) // (N, 99, H, W)
	}
	x = n.head(mode, maps, x)
	if n.rng != nil {
		x = n.rng.Forward(mode, x)
	}
	return x
}

// head turns the decoder's maps and its full-size output into class scores.
func (n *Net) head(mode nn.Mode, maps []torch.Tensor, x torch.Tensor) torch.Tensor {
	if n.columns == nil {
		return n.final.Forward(mode, x)
	}
	x = n.columns.Project(mode, maps, x, n.final.Conv.Weight(mode), n.final.Conv.Bias)
	return n.final.Sequential[1:].Forward(mode, x)
}

// CheckSize says whether the network takes images of h rows and w columns.
func (n *Net) CheckSize(h, w int) error {
	multiple := 2
	if n.columns != nil {
		multiple = 1 << len(n.encoder.Channels())
	}
	if h < multiple || w < multiple || h%multiple != 0 || w%multiple != 0 {
		up := func(v int) int { return max((v+multiple-1)/multiple, 1) * multiple }
		return fmt.Errorf("unet: images are %dx%d; height and width must be multiples of %d, resize or pad them to %dx%d",
			h, w, multiple, up(h), up(w))
	}
	return nil
}

// LayerGroups returns the trained tensors in the three groups that fastai gives
// their own learning rates: the encoder's early part, its last stages, and the
// rest.
func (n *Net) LayerGroups() [][]nn.Named {
	groups := make([][]nn.Named, 3)
	for _, p := range nn.Parameters(n) {
		g := 2
		if name, ok := strings.CutPrefix(p.Name, "layers.0."); ok {
			g = 0
			if n.encoder.Late(name) {
				g = 1
			}
		}
		groups[g] = append(groups[g], p)
	}
	return groups
}

// Walk shows all layers, in fastai's order and under its names.
func (n *Net) Walk(w nn.Walker) { w.Child("layers", n.layers) }

func (n *Net) String() string {
	if n.columns == nil {
		return "DynamicUnet"
	}
	return "DynamicUnet_Hcolumns"
}
