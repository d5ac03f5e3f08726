// Package hypercolumn implements the hypercolumn head, which combines feature maps of
// all scales (Hariharan et al. 2015, https://arxiv.org/abs/1411.5752): each decoder map
// is reduced by two 3x3 convolutions, resized to full size and concatenated with the
// last map of the network; then a 1x1 convolution computes the class scores of each
// pixel.
//
// # Folding
//
// A 1x1 convolution W commutes with bilinear resizing and distributes over
// concatenation, and no activation follows the second 3x3 convolution K2. So for the
// decoder maps h and the last map x
//
//	W * cat(up(K2 * (K1 * h) + b2), ..., x) = Wx*x + sum up((W K2) * (K1 * h) + W b2)
//
// where up is the resizing and Wx the part of W for x. On the right side, the wide maps
// are reduced to one map for each class before they are resized.
//
// The first convolution K1 has no activation either. Let V = W K2, a kernel of 3x3 taps.
// V * (K1 * h) is the sum over the taps t of (Vt K1) * h, where each summand is shifted
// by the offset of its tap. What is shifted over the edge of the map is dropped, which
// is the same as V's zero padding. So K1 is replaced by a convolution to 9 maps for each
// class, which usually are fewer than the output maps of K1.
//
// [Columns.Project] computes this sum. It uses the parameters of the left side and gives
// them the same gradients.
package hypercolumn

import (
	"fmt"

	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Columns holds the factorization: two 3x3 convolutions for each map.
type Columns struct {
	factors []nn.Sequential // [K1, K2] per map
	width   int64           // channels of each reduced map, and of x
}

// New returns columns for maps with the given numbers of channels. Each map is reduced
// to width channels, the number of channels of the last map x.
func New(in *nn.Init, maps []int64, width int64) *Columns {
	c := &Columns{width: width}
	for _, m := range maps {
		c.factors = append(c.factors, nn.Sequential{
			nn.NewConv2d(in, m, width, 3, &nn.ConvOptions{Padding: 1}),
			nn.NewConv2d(in, width, width, 3, &nn.ConvOptions{Padding: 1}),
		})
	}
	return c
}

// Width returns the number of channels that Forward returns.
func (c *Columns) Width() int64 { return c.width * int64(len(c.factors)+1) }

// Forward returns the hypercolumns (N, Width, H, W): the reduced maps (N, width, h, w),
// resized to the size of x, and x (N, width, H, W) itself. A network in which a 1x1
// convolution follows should call Project, which takes less memory. Both panic if the
// number of maps is not that of New.
func (c *Columns) Forward(mode nn.Mode, maps []torch.Tensor, x torch.Tensor) torch.Tensor {
	c.check(maps)
	size := nn.Shape(x)
	columns := make([]torch.Tensor, 0, len(maps)+1)
	for i, h := range maps {
		columns = append(columns, nn.ResizeBilinear(c.factors[i].Forward(mode, h), size[2], size[3]))
	}
	return nn.Cat(append(columns, x)...)
}

// Project returns class scores (N, K, H, W): the 1x1 convolution of the hypercolumns
// with weight (K, Width, 1, 1) and bias (K). It does not compute the hypercolumns
// themselves. bias may be the zero torch.Tensor.
func (c *Columns) Project(mode nn.Mode, maps []torch.Tensor, x, weight, bias torch.Tensor) torch.Tensor {
	c.check(maps)
	size := nn.Shape(x)
	classes := nn.Shape(weight)[0]
	part := func(i int) torch.Tensor { return nn.Narrow(weight, 1, int64(i)*c.width, c.width) }

	scores := nn.Conv(x, part(len(maps)), bias, 1, 0) // (N, K, H, W)
	for i, h := range maps {
		scores = nn.Result(func() torch.Tensor {
			s := c.reduce(mode, i, h, nn.Reshape(part(i), classes, c.width)) // (N, K, h, w)
			return nn.Add(scores, nn.ResizeBilinear(s, size[2], size[3]))
		})
	}
	return scores
}

const taps = 3 * 3

// reduce returns W * (K2 * (K1 * h + b1) + b2) for map i, where w is W, (K, width).
func (c *Columns) reduce(mode nn.Mode, i int, h, w torch.Tensor) torch.Tensor {
	k1, k2 := c.factors[i][0].(*nn.Conv2d), c.factors[i][1].(*nn.Conv2d)
	classes := nn.Shape(w)[0]
	v := nn.MatMul(w, nn.Reshape(k2.Weight(mode), c.width, -1)) // (K, width*9)
	constant := nn.MatMul(w, k2.Bias)
	if classes*taps >= c.width { // folding K1 would not reduce the number of its output maps
		return nn.Conv(k1.Forward(mode, h), nn.Reshape(v, classes, c.width, 3, 3), constant, 1, 1)
	}
	// sumTaps shifts the maps in the opposite direction of a convolution's taps, so the
	// order of the taps is reversed.
	v = nn.Reshape(nn.Transpose(nn.FlipLR(nn.Reshape(v, classes, c.width, taps)), 1, 2), classes*taps, c.width)
	folded := nn.Reshape(nn.MatMul(v, nn.Reshape(k1.Weight(mode), c.width, -1)), classes*taps, k1.In, 3, 3)
	each := nn.Conv(h, folded, nn.MatMul(v, k1.Bias), 1, 1) // (N, K*9, h, w)
	return nn.Add(sumTaps(each), nn.Reshape(constant, classes, 1, 1))
}

var opCol2Im = nn.NewOp("col2im")

// sumTaps shifts each of the 9 maps of a class in x (N, K*9, h, w) by the offset of its
// tap and returns their sum (N, K, h, w).
func sumTaps(x torch.Tensor) torch.Tensor {
	size := nn.Shape(x)
	one := []int64{1, 1}
	return opCol2Im.Call(nn.Reshape(x, size[0], size[1], -1), size[2:], []int64{3, 3}, one, one, one)
}

func (c *Columns) check(maps []torch.Tensor) {
	if len(maps) != len(c.factors) {
		panic(fmt.Errorf("hypercolumn: %d maps, the columns were made for %d", len(maps), len(c.factors)))
	}
}

// Walk shows the factorization.
func (c *Columns) Walk(w nn.Walker) {
	list := make(nn.List, len(c.factors))
	for i, f := range c.factors {
		list[i] = f
	}
	w.Child("factorization", list)
}

func (c *Columns) String() string { return "Hcolumns" }
