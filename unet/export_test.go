package unet

import (
	"fmt"

	"github.com/hcunet/hcunet/hypercolumn"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Slow computes Forward in nn.Eval without optimizations: every layer by itself, in
// fastai's order, and the hypercolumns with all their channels. It calls record with
// the name and the output of each layer. record must copy an output to keep it, because
// a later step may overwrite it.
func Slow(n *Net, image torch.Tensor, record func(name string, x torch.Tensor)) torch.Tensor {
	x := image
	var features, maps []torch.Tensor
	for i, part := range children(n.encoder) {
		x = part.(nn.Layer).Forward(nn.Eval, x)
		record(fmt.Sprintf("layers.0.%d", i), x)
		if i == 2 || i >= 4 {
			features = append(features, x)
		}
	}
	for i, s := range n.stages[1:] {
		name := fmt.Sprintf("layers.%d", i+1)
		switch l := s.Module.(type) {
		case *block:
			if len(maps) == 0 {
				maps = append(maps, x) // the output of the middle convolutions
			}
			skip := features[len(features)-1-len(maps)]
			if n.cfg.DetachSkips {
				skip = nn.Detach(skip)
			}
			x = slowBlock(l, x, skip, name, record)
			maps = append(maps, x)
		case nn.Leaf: // the concatenation with the image
			x = nn.Cat(x, image)
		case *hypercolumn.Columns:
			for j, f := range children(children(l)[0]) {
				record(fmt.Sprintf("%s.factorization.%d", name, j), f.(nn.Layer).Forward(nn.Eval, maps[j]))
			}
			x = l.Forward(nn.Eval, maps, x)
		case nn.Layer:
			x = l.Forward(nn.Eval, x)
		}
		record(name, x)
	}
	return x
}

func slowBlock(b *block, x, skip torch.Tensor, name string, record func(string, torch.Tensor)) torch.Tensor {
	x = b.up.Forward(nn.Eval, x)
	record(name+".shuf", x)
	if s := nn.Shape(skip); s[2] != nn.Shape(x)[2] || s[3] != nn.Shape(x)[3] {
		x = nn.ResizeNearest(x, s[2], s[3])
	}
	x = b.conv1.Forward(nn.Eval, nn.ReLU(nn.Cat(x, b.bn.Forward(nn.Eval, skip))))
	record(name+".conv1", x)
	return b.conv2.Forward(nn.Eval, x)
}

// children returns the parts of m in order.
func children(m nn.Module) []nn.Module {
	var c childWalker
	m.Walk(&c)
	return c
}

type childWalker []nn.Module

func (*childWalker) Param(string, torch.Tensor)    {}
func (*childWalker) Buffer(string, torch.Tensor)   {}
func (c *childWalker) Child(_ string, m nn.Module) { *c = append(*c, m) }
