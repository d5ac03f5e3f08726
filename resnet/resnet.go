// Package resnet implements the ResNet-18 and ResNet-34 encoders of He et al. 2015,
// https://arxiv.org/abs/1512.03385: torchvision's models without the classifier, which a
// segmentation network does not need. Importing the package registers them with package
// encoder as "resnet18" and "resnet34".
//
// For a 1x3x64x64 input, Features returns
//
//	(1,  64, 32, 32)  after the first convolution, batch norm and ReLU
//	(1,  64, 16, 16)  after max pooling and the first stage
//	(1, 128,  8,  8)
//	(1, 256,  4,  4)
//	(1, 512,  2,  2)
package resnet

import (
	"slices"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/encoder"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// The number of blocks per stage.
var (
	blocks18 = [4]int{2, 2, 2, 2}
	blocks34 = [4]int{3, 4, 6, 3}
)

var widths = [4]int64{64, 128, 256, 512}

func init() {
	encoder.Register(kind("resnet18", blocks18))
	encoder.Register(kind("resnet34", blocks34))
}

// kind describes a ResNet and torchvision's weight files for it.
func kind(name string, blocks [4]int) encoder.Kind {
	k := encoder.Kind{
		Name:    name,
		Widths:  []int64{widths[0], widths[0], widths[1], widths[2], widths[3]},
		Strides: []int64{2, 4, 8, 16, 32},
		Groups:  2,
		Group:   group,
		New:     func(in *nn.Init, channels int64) encoder.Encoder { return newEncoder(in, channels, name, blocks) },
	}
	for _, f := range slices.Backward(checkpoint.Generations(name)) {
		k.Weights = append(k.Weights, encoder.Weights{
			Name: f,
			Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225}, // torchvision's values for ImageNet
		})
	}
	return k
}

// group returns the layer group of a tensor from its name in the state dict, such as
// "6.0.conv1.weight": 1 for the last two stages, 0 for the layers before, as in fastai.
func group(name string) int {
	if len(name) > 0 && (name[0] == '6' || name[0] == '7') {
		return 1
	}
	return 0
}

// An Encoder is a ResNet without average pool and classifier. Its parts are named "0" to
// "7": convolution, batch norm, ReLU, max pool, and four stages.
type Encoder struct {
	name  string // name of its kind
	inC   int64
	parts nn.Sequential
}

// New18 returns a ResNet-18 encoder for images of inC channels with random
// weights.
func New18(in *nn.Init, inC int64) *Encoder { return newEncoder(in, inC, "resnet18", blocks18) }

// New34 returns a ResNet-34 encoder for images of inC channels with random
// weights.
func New34(in *nn.Init, inC int64) *Encoder { return newEncoder(in, inC, "resnet34", blocks34) }

// newEncoder initializes convolutions as torchvision does: Kaiming normal with the
// fan-out.
func newEncoder(in *nn.Init, inC int64, name string, blocks [4]int) *Encoder {
	e := &Encoder{name, inC, nn.Sequential{
		nn.NewConv2d(in, inC, widths[0], 7, &nn.ConvOptions{Stride: 2, Padding: 3, NoBias: true, Init: nn.FanOut}),
		nn.NewBatchNorm2d(in, widths[0], nil),
		nn.Activation{InPlace: true},
		nn.MaxPool2d{Kernel: 3, Stride: 2, Padding: 1},
	}}
	c := widths[0]
	for i, n := range blocks {
		var stage nn.Sequential
		for j := range n {
			stride := int64(1)
			if i > 0 && j == 0 {
				stride = 2
			}
			stage = append(stage, newBasicBlock(in, c, widths[i], stride))
			c = widths[i]
		}
		e.parts = append(e.parts, stage)
	}
	return e
}

// InChannels returns the number of channels of an input image.
func (e *Encoder) InChannels() int64 { return e.inC }

// Kind returns the properties of all encoders of this depth.
func (e *Encoder) Kind() encoder.Kind {
	k, err := encoder.Find(e.name)
	if err != nil {
		panic(err) // impossible: init has registered the kind
	}
	return k
}

// Features returns five maps of x (N, InChannels, H, W), from half its height and width
// down to 1/32; the package comment lists their shapes.
func (e *Encoder) Features(mode nn.Mode, x torch.Tensor) []torch.Tensor {
	features := make([]torch.Tensor, 0, 5)
	for i, part := range e.parts {
		x = part.Forward(mode, x)
		if i == 2 || i >= 4 {
			features = append(features, x)
		}
	}
	return features
}

// Walk shows the parts.
func (e *Encoder) Walk(w nn.Walker) { e.parts.Walk(w) }

func (e *Encoder) String() string { return "Sequential" }

// A basicBlock is two 3x3 convolutions and a shortcut (He et al., figure 5 left).
type basicBlock struct {
	conv1, conv2 *nn.Conv2d
	bn1, bn2     *nn.BatchNorm2d
	relu         nn.Activation
	downsample   nn.Sequential // 1x1 convolution and batch norm; nil if the shape does not change
}

func newBasicBlock(in *nn.Init, inC, c, stride int64) *basicBlock {
	conv := func(inC, stride int64) *nn.Conv2d {
		return nn.NewConv2d(in, inC, c, 3, &nn.ConvOptions{Stride: stride, Padding: 1, NoBias: true, Init: nn.FanOut})
	}
	b := &basicBlock{
		conv1: conv(inC, stride), bn1: nn.NewBatchNorm2d(in, c, nil),
		conv2: conv(c, 1), bn2: nn.NewBatchNorm2d(in, c, nil),
		relu: nn.Activation{InPlace: true},
	}
	if stride != 1 || inC != c {
		b.downsample = nn.Sequential{
			nn.NewConv2d(in, inC, c, 1, &nn.ConvOptions{Stride: stride, NoBias: true, Init: nn.FanOut}),
			nn.NewBatchNorm2d(in, c, nil),
		}
	}
	return b
}

// Forward returns relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)).
func (b *basicBlock) Forward(mode nn.Mode, x torch.Tensor) torch.Tensor {
	y := b.relu.Forward(mode, b.bn1.Forward(mode, b.conv1.Forward(mode, x)))
	y = b.bn2.Forward(mode, b.conv2.Forward(mode, y))
	return b.relu.Forward(mode, nn.Add(y, b.downsample.Forward(mode, x)))
}

func (b *basicBlock) Walk(w nn.Walker) {
	w.Child("conv1", b.conv1)
	w.Child("bn1", b.bn1)
	w.Child("relu", b.relu)
	w.Child("conv2", b.conv2)
	w.Child("bn2", b.bn2)
	if b.downsample != nil {
		w.Child("downsample", b.downsample)
	}
}

func (b *basicBlock) String() string { return "BasicBlock" }
