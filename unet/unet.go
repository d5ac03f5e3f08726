// Package unet implements the U-Net (Ronneberger et al. 2015,
// https://arxiv.org/abs/1505.04597) that fastai 1.0.54 builds on an encoder, with
// pixel-shuffle upsampling and a hypercolumn head.
//
// With a ResNet-34 for images of 3 channels, two classes and the zero [Config], a [Net]
// is the network of the notebook "Hypercolumns pneumothorax fastai": it has the same
// 43,232,353 parameters under the same names, and gives the same outputs for the same
// weights.
package unet

import (
	"fmt"
	"strings"

	"github.com/hcunet/hcunet/encoder"
	"github.com/hcunet/hcunet/hypercolumn"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

const bnBias = 1e-3 // fastai 1.0.54, layers.py, batchnorm_2d

// A Net is a U-Net: stages that run one after the other. Some of them also read the
// output of earlier stages.
type Net struct {
	cfg     Config
	encoder encoder.Encoder
	stages  []stage
}

// A stage is one of fastai's layers and its part of the forward pass.
type stage struct {
	nn.Module
	run func(nn.Mode, *pass)
}

// A pass holds the tensors of one forward pass, which its stages read and write.
type pass struct {
	image torch.Tensor   // (N, C, H, W)
	skips []torch.Tensor // the encoder's maps that no block has used yet, the deepest last
	maps  []torch.Tensor // the outputs of the middle convolutions and of each block so far
	x     torch.Tensor   // the output of the last stage
}

// layer returns a stage that applies l to x.
func layer(l nn.Layer) stage {
	return stage{l, func(mode nn.Mode, p *pass) { p.x = l.Forward(mode, p.x) }}
}

// Build returns a network with random weights, on the encoder that cfg names, for images
// with the given number of channels. The program must import the package that registers
// the encoder, such as resnet. Build returns an error if the encoder is not registered,
// if cfg does not pass Check, or if channels or classes is below 1.
func Build(in *nn.Init, channels, classes int64, cfg Config) (*Net, error) {
	kind, err := encoder.Find(cfg.Encoder)
	if err != nil {
		return nil, fmt.Errorf("unet: %w", err)
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if channels < 1 || classes < 1 {
		return nil, fmt.Errorf("unet: %d channels and %d classes, wanted at least one of each", channels, classes)
	}
	var net *Net
	err = nn.Try(func() { net = New(in, kind.New(in, channels), classes, cfg) })
	return net, err
}

// New returns a network with random weights on the encoder e, with one map of scores for
// each class. It ignores cfg.Encoder. It panics if the strides of the encoder's maps are
// not 2, 4, 8, ..., or if cfg does not pass Check.
func New(in *nn.Init, e encoder.Encoder, classes int64, cfg Config) *Net {
	kind := e.Kind()
	for i, s := range kind.Strides {
		if s != 2<<i {
			panic(fmt.Errorf("unet: %s has maps at strides %v, wanted 2, 4, 8, ...", kind.Name, kind.Strides))
		}
	}
	if err := cfg.Check(); err != nil {
		panic(err)
	}
	cfg.Encoder = kind.Name
	widths := kind.Widths
	c := widths[len(widths)-1]
	net := &Net{cfg: cfg, encoder: e}
	add := func(s stage) { net.stages = append(net.stages, s) }

	add(stage{e, func(mode nn.Mode, p *pass) { p.skips = e.Features(mode, p.image); p.x = p.pop() }})
	add(layer(nn.NewBatchNorm2d(in, c, &nn.BatchNormOptions{Bias: bnBias})))
	add(layer(relu{}))
	middle := nn.Sequential{
		nn.NewConvLayer(in, c, 2*c, 3, nn.ConvLayerOptions{Norm: cfg.Norm}),
		nn.NewConvLayer(in, 2*c, c, 3, nn.ConvLayerOptions{Norm: cfg.Norm}),
	}
	add(stage{middle, func(mode nn.Mode, p *pass) { p.x = middle.Forward(mode, p.x); p.maps = append(p.maps, p.x) }})

	skips := len(widths) - 1
	maps := []int64{c}
	for i := range skips {
		final := i == skips-1
		var b *block
		b, c = newBlock(in, c, widths[skips-1-i], blockOptions{
			final:     final,
			noBlur:    !cfg.Blur.Inner() || final && !cfg.Blur.Final(),
			attention: cfg.SelfAttention && i == skips-3,
			norm:      cfg.Norm,
		})
		maps = append(maps, c)
		add(stage{b, func(mode nn.Mode, p *pass) {
			skip := p.pop()
			if cfg.DetachSkips {
				skip = nn.Detach(skip)
			}
			p.x = b.Forward(mode, p.x, skip)
			p.maps = append(p.maps, p.x)
		}})
	}
	last := nn.NewPixelShuffleICNR(in, c, c, nn.PixelShuffleOptions{Norm: cfg.Norm, NoBlur: !cfg.Blur.Final()})
	if cfg.NoLastCross {
		add(layer(last))
	} else {
		// This stage upsamples and appends the image, which is fastai's next layer.
		convolutions := cfg.Norm != nn.NormBatch && cfg.Norm != nn.NormBatchZero // only these follow
		add(stage{last, func(mode nn.Mode, p *pass) { p.x = last.Join(mode, p.x, p.image, convolutions) }})
		c += e.InChannels()
		add(stage{nn.Leaf("MergeLayer()"), func(nn.Mode, *pass) {}})
		add(layer(nn.NewResBlock(in, c, cfg.Norm, cfg.Bottle)))
	}
	if cfg.NoHypercolumns {
		add(layer(newHead(in, c, classes, cfg.Norm)))
	} else {
		columns := hypercolumn.New(in, maps, c)
		final := newHead(in, columns.Width(), classes, cfg.Norm)
		// This stage computes the hypercolumns and the head's 1x1 convolution together,
		// see package hypercolumn. The next stage computes the head's other layers.
		add(stage{columns, func(mode nn.Mode, p *pass) {
			p.x = columns.Project(mode, p.maps, p.x, final.Conv.Weight(mode), final.Conv.Bias)
		}})
		add(stage{final, func(mode nn.Mode, p *pass) { p.x = final.Sequential[1:].Forward(mode, p.x) }})
	}
	if cfg.YRange != nil {
		add(layer(nn.SigmoidRange{Low: cfg.YRange[0], High: cfg.YRange[1]}))
	}
	return net
}

// newHead returns the 1x1 convolution that computes the class scores.
func newHead(in *nn.Init, c, classes int64, norm nn.Norm) *nn.ConvLayer {
	return nn.NewConvLayer(in, c, classes, 1, nn.ConvLayerOptions{Norm: norm, NoActivation: true})
}

// pop removes the deepest of p.skips and returns it.
func (p *pass) pop() torch.Tensor {
	last := len(p.skips) - 1
	x := p.skips[last]
	p.skips = p.skips[:last]
	return x
}

// A relu overwrites its input, which nothing else needs here. fastai's makes a copy.
type relu struct{}

func (relu) Forward(_ nn.Mode, x torch.Tensor) torch.Tensor { return nn.ReLUInPlace(x) }
func (relu) Walk(nn.Walker)                                 {}
func (relu) String() string                                 { return "ReLU()" }

// Forward returns the class scores (N, classes, H, W) of images (N, C, H, W): logits, or
// values in Config.YRange if it is set. It panics with an *[nn.InputError] if C is not
// InChannels or [Net.CheckSize] refuses the size, and with an *[nn.Error] where libtorch
// refuses an operation; [nn.Try] turns both into errors.
func (n *Net) Forward(mode nn.Mode, image torch.Tensor) torch.Tensor {
	n.checkImages(image)
	p := &pass{image: image}
	for _, s := range n.stages {
		p.run(mode, s)
	}
	return p.x
}

// run runs a stage and frees the tensors that no later stage needs.
func (p *pass) run(mode nn.Mode, s stage) {
	nn.Scope(func() {
		s.run(mode, p)
		nn.Keep(p.skips...)
		nn.Keep(p.maps...)
		nn.Keep(p.x)
	})
}

func (n *Net) checkImages(image torch.Tensor) {
	size := nn.Shape(image)
	if c := n.encoder.InChannels(); len(size) != 4 || size[1] != c {
		panic(&nn.InputError{Layer: "unet", Msg: fmt.Sprintf("images of shape %v, wanted (N, %d, H, W)", size, c)})
	}
	if err := n.CheckSize(int(size[2]), int(size[3])); err != nil {
		panic(&nn.InputError{Layer: "unet", Msg: strings.TrimPrefix(err.Error(), "unet: ")})
	}
}

// CheckSize returns an error if the network cannot take images of h rows and w columns.
// With hypercolumns both must be multiples of the encoder's largest stride, without them
// multiples of its smallest. The error names the next larger size.
func (n *Net) CheckSize(h, w int) error {
	strides := n.encoder.Kind().Strides
	multiple := int(strides[0])
	if !n.cfg.NoHypercolumns {
		multiple = int(strides[len(strides)-1])
	}
	if h < multiple || w < multiple || h%multiple != 0 || w%multiple != 0 {
		up := func(v int) int { return max((v+multiple-1)/multiple, 1) * multiple }
		return fmt.Errorf("unet: images are %dx%d; height and width must be multiples of %d, resize or pad them to %dx%d",
			h, w, multiple, up(h), up(w))
	}
	return nil
}

// Static returns true: a forward pass is the same operations for all images of one shape,
// so that a learner of package train may record them.
func (n *Net) Static() bool { return true }

// Config returns the configuration of the network, with the name of its encoder.
func (n *Net) Config() Config { return n.cfg }

// Encoder returns the network's encoder.
func (n *Net) Encoder() encoder.Encoder { return n.encoder }

// InChannels returns the number of channels of an image.
func (n *Net) InChannels() int64 { return n.encoder.InChannels() }

// LayerGroups returns the parameters in groups that may have different learning rates:
// first the groups of the encoder, from its earliest layers on, and then one group with
// all other parameters.
func (n *Net) LayerGroups() [][]nn.Named {
	kind := n.encoder.Kind()
	groups := make([][]nn.Named, kind.Groups+1)
	for _, p := range nn.Parameters(n) {
		g := kind.Groups
		if name, ok := strings.CutPrefix(p.Name, "layers.0."); ok {
			g = kind.Group(name)
		}
		groups[g] = append(groups[g], p)
	}
	return groups
}

// Walk shows the stages, under fastai's names.
func (n *Net) Walk(w nn.Walker) {
	layers := make(nn.List, len(n.stages))
	for i, s := range n.stages {
		layers[i] = s.Module
	}
	w.Child("layers", layers)
}

func (n *Net) String() string {
	if n.cfg.NoHypercolumns {
		return "DynamicUnet"
	}
	return "DynamicUnet_Hcolumns"
}
