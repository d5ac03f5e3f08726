package nn

import torch "github.com/wangkuiyi/gotorch"

// A SelfAttention adds to each pixel a weighted sum of the value vectors of all
// pixels. The weights are the softmax of the products of queries and keys. The sum is
// scaled by the parameter gamma, which starts at 0.
//
// Source: Zhang et al. 2018, https://arxiv.org/abs/1805.08318; fastai 1.0.54,
// layers.py, SelfAttention (the softmax runs over the dimension of the queries).
type SelfAttention struct {
	gamma             torch.Tensor // (1)
	query, key, value *pointwise
}

// NewSelfAttention returns a layer of c channels. It panics if c is below 8.
func NewSelfAttention(in *Init, c int64) *SelfAttention {
	return &SelfAttention{
		gamma: in.param([]float32{0}, 1),
		query: newPointwise(in, c, c/8),
		key:   newPointwise(in, c, c/8),
		value: newPointwise(in, c, c),
	}
}

// Forward returns gamma*attention(x) + x for x (N, C, H, W). The weights take memory
// for N*(H*W)² numbers.
func (a *SelfAttention) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	size := Shape(x)
	x = Reshape(x, size[0], size[1], -1) // (N, C, HW)
	f, g, h := a.query.Forward(mode, x), a.key.Forward(mode, x), a.value.Forward(mode, x)
	beta := Softmax(MatMul(Transpose(f, 1, 2), g), 1) // (N, HW, HW)
	o := Add(Mul(a.gamma, MatMul(h, beta)), x)
	return Reshape(o, size...)
}

// Walk shows gamma and the three projections.
func (a *SelfAttention) Walk(w Walker) {
	w.Param("gamma", a.gamma)
	w.Child("query", a.query)
	w.Child("key", a.key)
	w.Child("value", a.value)
}

func (a *SelfAttention) String() string { return "SelfAttention" }

// A pointwise is a one-dimensional convolution with kernel size 1 and spectral norm,
// without bias.
type pointwise struct {
	weight weight // (Out, In, 1)
	out    int64
}

func newPointwise(in *Init, inC, outC int64) *pointwise {
	checkWidths("SelfAttention", inC, outC)
	return &pointwise{newWeight(in, NormSpectral, in.kaiming(FanIn, outC, inC, 1, 1), outC, inC, 1), outC}
}

// Forward maps (N, In, L) to (N, Out, L).
func (p *pointwise) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	return MatMul(Reshape(p.weight.value(mode), p.out, -1), x)
}

func (p *pointwise) Walk(w Walker)  { p.weight.walk(w, func() {}) }
func (p *pointwise) String() string { return "Conv1d" }
