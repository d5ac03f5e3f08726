package nn

import (
	"fmt"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// BatchNormOptions are the optional settings of a batch norm.
type BatchNormOptions struct {
	Bias float64 // the initial bias; 1e-3 in fastai 1's batchnorm_2d
	Gain Gain
}

// Gain is the initial weight of a batch norm.
type Gain int

const (
	GainOne  Gain = iota // 1
	GainZero             // 0, so that a residual branch adds nothing at the start
)

// A BatchNorm2d normalizes each channel of (N, C, H, W): by the statistics of the
// batch in training, by running statistics in evaluation. The running variance is
// updated with the unbiased variance of the batch.
//
// Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167; eps and
// momentum as torch.nn.BatchNorm2d.
type BatchNorm2d struct {
	C            int64
	Momentum     float64 // in [0, 1]: weight of a new batch in the running statistics
	weight, bias torch.Tensor
	mean, var_   torch.Tensor
	batches      torch.Tensor // int64, counts training batches

	// sum returns the sum of a tensor over all processes of a training; nil if there
	// is one process, or if each normalizes by its own batch.
	sum func(torch.Tensor) torch.Tensor
}

const batchNormEps = 1e-5 // torch.nn.BatchNorm2d

// NewBatchNorm2d returns a batch norm of c channels with momentum 0.1; opt may
// be nil.
func NewBatchNorm2d(in *Init, c int64, opt *BatchNormOptions) *BatchNorm2d {
	checkWidths("BatchNorm2d", c)
	o := BatchNormOptions{}
	if opt != nil {
		o = *opt
	}
	gain := float32(1)
	if o.Gain == GainZero {
		gain = 0
	}
	return &BatchNorm2d{
		C:        c,
		Momentum: 0.1, // torch.nn.BatchNorm2d
		weight:   in.param(constant(gain, c), c),
		bias:     in.param(constant(float32(o.Bias), c), c),
		mean:     in.buffer(constant(0, c), c),
		var_:     in.buffer(constant(1, c), c),
		batches:  Zeros(in.Device, Long),
	}
}

var (
	opBatchNorm  = shim.NewOp("batch_norm")
	opAddScalar_ = shim.NewOp("add_.Scalar")
)

// Forward normalizes x (N, C, H, W): in Train by the statistics of x, with which it
// also updates the running statistics; in Eval by the running statistics.
func (b *BatchNorm2d) Forward(mode Mode, x torch.Tensor) torch.Tensor {
	if mode == Train {
		run(opAddScalar_, b.batches, 1)
		if b.sum != nil {
			return b.synchronized(x)
		}
	}
	return call(opBatchNorm, x, b.weight, b.bias, b.mean, b.var_, mode == Train, b.Momentum, batchNormEps, true)
}

// Walk shows weight, bias and the running statistics.
func (b *BatchNorm2d) Walk(w Walker) {
	w.Param("weight", b.weight)
	w.Param("bias", b.bias)
	w.Buffer("running_mean", b.mean)
	w.Buffer("running_var", b.var_)
	w.Buffer("num_batches_tracked", b.batches)
}

func (b *BatchNorm2d) String() string {
	return fmt.Sprintf("BatchNorm2d(%d, eps=1e-05, momentum=%v, affine=True, track_running_stats=True)", b.C, b.Momentum)
}
