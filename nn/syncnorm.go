package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

var (
	opSumDims = shim.NewOp("sum.dim_IntList")
	opRsqrt   = shim.NewOp("rsqrt")
)

// SyncBatchNorm makes every batch norm of m normalize, in [Train], by the statistics
// of the batches of all processes together. sum returns the sum of a tensor over the
// processes and must pass gradients through, as dist.Group's SumWithGradient does. A
// nil sum switches back to the statistics of the process's own batch.
//
// Source: torch.nn.SyncBatchNorm of PyTorch 1.13.
func SyncBatchNorm(m Module, sum func(torch.Tensor) torch.Tensor) {
	Each(m, func(m Module) {
		if bn, ok := m.(*BatchNorm2d); ok {
			bn.sum = sum
		}
	})
}

// synchronized is Forward in Train over all processes. The variance is the mean of the
// squared deviations from the mean, because the difference of mean square and squared
// mean loses its digits where the mean is large. It computes in the element type of
// the parameters.
func (b *BatchNorm2d) synchronized(x torch.Tensor) torch.Tensor {
	device, dtype := DeviceOf(b.weight), DTypeOf(b.weight)
	given := DTypeOf(x)
	x = To(x, device, dtype)
	shape := Shape(x)
	perChannel := func(t torch.Tensor) torch.Tensor { return Reshape(t, 1, b.C, 1, 1) }
	total := func(t torch.Tensor) torch.Tensor { return call(opSumDims, t, []int64{0, 2, 3}) }

	count := Full(device, dtype, float64(shape[0]*shape[2]*shape[3]), 1)
	sums := b.sum(call(opCat, []torch.Tensor{total(x), count}, 0)) // (C + 1)
	n := Narrow(sums, 0, b.C, 1)
	mean := Div(Narrow(sums, 0, 0, b.C), n)
	centred := Sub(x, perChannel(mean))
	squares := b.sum(total(Mul(centred, centred)))
	variance := Div(squares, n)

	NoGrad(func() {
		blend := func(running, now torch.Tensor) {
			CopyInto(running, Add(MulScalar(running, 1-b.Momentum), MulScalar(To(now, device, dtype), b.Momentum)))
		}
		blend(b.mean, Detach(mean))
		blend(b.var_, Detach(Div(squares, AddScalar(n, -1)))) // unbiased
	})
	scale := Mul(b.weight, call(opRsqrt, AddScalar(variance, batchNormEps)))
	y := Add(Mul(centred, perChannel(scale)), perChannel(b.bias))
	return To(y, device, given)
}
