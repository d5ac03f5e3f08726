package nn

import (
	"math"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// A weight is a kernel together with the parameters from which it is computed. value
// returns the kernel. walk shows the parameters and calls bias, which shows the bias,
// in the order of PyTorch's state dict.
type weight interface {
	value(mode Mode) torch.Tensor
	walk(w Walker, bias func())
}

func newWeight(in *Init, norm Norm, values []float32, shape ...int64) weight {
	switch norm {
	case NormWeight:
		return newWeightNorm(in, values, shape)
	case NormSpectral:
		return newSpectralNorm(in, values, shape)
	}
	return plainWeight{in.param(values, shape...)}
}

type plainWeight struct{ w torch.Tensor }

func (p plainWeight) value(Mode) torch.Tensor { return p.w }
func (p plainWeight) walk(w Walker, bias func()) {
	w.Param("weight", p.w)
	bias()
}

// weightNorm computes the kernel g * v/|v| for each output channel: Salimans and
// Kingma 2016, https://arxiv.org/abs/1602.07868, as torch.nn.utils.weight_norm with
// dim=0.
type weightNorm struct {
	g, v torch.Tensor // g is (Out, 1, ...), v has the kernel's shape
}

func newWeightNorm(in *Init, values []float32, shape []int64) *weightNorm {
	out := shape[0]
	row := int64(len(values)) / out
	norms := make([]float32, out)
	for i := range norms {
		var sum float64
		for _, v := range values[int64(i)*row : int64(i+1)*row] {
			sum += float64(v) * float64(v)
		}
		norms[i] = float32(math.Sqrt(sum))
	}
	gShape := []int64{out}
	for range shape[1:] {
		gShape = append(gShape, 1)
	}
	return &weightNorm{in.param(norms, gShape...), in.param(values, shape...)}
}

var opNormExceptDim = shim.NewOp("norm_except_dim")

// libtorch's own weight norm computes in float32 on CUDA, also if its parameters are float64.
func (n *weightNorm) value(Mode) torch.Tensor {
	return Mul(n.v, Div(n.g, call(opNormExceptDim, n.v, 2, 0)))
}
func (n *weightNorm) walk(w Walker, bias func()) {
	bias()
	w.Param("weight_g", n.g)
	w.Param("weight_v", n.v)
}

// spectralNorm divides the kernel by its largest singular value: Miyato et al. 2018,
// https://arxiv.org/abs/1802.05957, as torch.nn.utils.spectral_norm. Each forward pass
// in training makes one power iteration, one in evaluation makes none.
type spectralNorm struct {
	orig  torch.Tensor // the kernel
	u, v  torch.Tensor // approximate singular vectors, (Out) and (In*kernel area)
	shape []int64
}

func newSpectralNorm(in *Init, values []float32, shape []int64) *spectralNorm {
	out := shape[0]
	row := int64(len(values)) / out
	s := &spectralNorm{
		orig:  in.param(values, shape...),
		u:     in.buffer(unitVector(in.normal(out, 1)), out),
		v:     in.buffer(unitVector(in.normal(row, 1)), row),
		shape: shape,
	}
	// torch.nn.utils.spectral_norm starts with 15 iterations as well.
	NoGrad(func() {
		for range 15 {
			s.iterate(Reshape(s.orig, out, -1))
		}
	})
	return s
}

func unitVector(v []float32) []float32 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	unit := make([]float32, len(v))
	for i, x := range v {
		unit[i] = float32(float64(x) / math.Sqrt(sum))
	}
	return unit
}

var (
	opMV       = shim.NewOp("mv")
	opDot      = shim.NewOp("dot")
	opNorm     = shim.NewOp("norm.ScalarOpt_dim")
	opClampMin = shim.NewOp("clamp_min")
	opT        = shim.NewOp("t")
	opClone    = shim.NewOp("clone")
)

// iterate improves u and v for the kernel as a matrix (Out, In*kernel area).
func (s *spectralNorm) iterate(matrix torch.Tensor) {
	CopyInto(s.v, normalized(call(opMV, call(opT, matrix), s.u)))
	CopyInto(s.u, normalized(call(opMV, matrix, s.v)))
}

// normalized is torch.nn.functional.normalize with eps=1e-12.
func normalized(v torch.Tensor) torch.Tensor {
	return Div(v, call(opClampMin, call(opNorm, v, 2.0, []int64{0}, true), 1e-12))
}

func (s *spectralNorm) value(mode Mode) torch.Tensor {
	matrix := Reshape(s.orig, s.shape[0], -1)
	u, v := s.u, s.v
	if mode == Train {
		NoGrad(func() { s.iterate(matrix) })
		// The next iteration overwrites u and v, which the backward pass still needs.
		u, v = call(opClone, u), call(opClone, v)
	}
	sigma := call(opDot, u, call(opMV, matrix, v))
	return Div(s.orig, sigma)
}

func (s *spectralNorm) walk(w Walker, bias func()) {
	bias()
	w.Param("weight_orig", s.orig)
	w.Buffer("weight_u", s.u)
	w.Buffer("weight_v", s.v)
}
