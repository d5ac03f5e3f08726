package nn

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// slowUpsample is PixelShuffle_ICNR as fastai 1.0.54 computes it: layer by layer, in
// the default memory format.
func slowUpsample(p *PixelShuffleICNR, x torch.Tensor) torch.Tensor {
	x = NewOp("pixel_shuffle").Call(ReLU(p.conv.Forward(Train, x)), 2)
	if p.noBlur {
		return x
	}
	x = NewOp("replication_pad2d").Call(x, []int64{1, 0, 1, 0}) // one column left, one row above
	return NewOp("avg_pool2d").Call(x, []int64{2, 2}, []int64{1, 1})
}

// The upsampling and its gradients are those of fastai, up to rounding.
func TestPixelShuffleIsFastai(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	for _, noBlur := range []bool{false, true} {
		p := NewPixelShuffleICNR(NewInit(CPU, 1), 3, 5, PixelShuffleOptions{NoBlur: noBlur})
		image, target := draw(2*3*4*3), draw(2*5*8*6)
		var out, grads [2][]float32
		for i, forward := range []func(torch.Tensor) torch.Tensor{
			func(x torch.Tensor) torch.Tensor { return p.Forward(Train, x) },
			func(x torch.Tensor) torch.Tensor { return slowUpsample(p, x) },
		} {
			Scope(func() {
				x, err := FromSlice(CPU, image, 2, 3, 4, 3)
				require.NoError(t, err)
				y, err := FromSlice(CPU, target, 2, 5, 8, 6)
				require.NoError(t, err)
				SetRequiresGrad(x, true)
				up := forward(x)
				require.NoError(t, Backward(Sum(Mul(up, y))))
				out[i], err = Slice[float32](up)
				require.NoError(t, err)
				g, ok := Grad(x)
				require.True(t, ok)
				grads[i], err = Slice[float32](g)
				require.NoError(t, err)
			})
		}
		// An output is a sum of four values in another order, a gradient a sum of ten;
		// float32 rounds by up to 6e-8 of a value.
		assert.InDeltaSlice(t, out[1], out[0], 1e-6)
		assert.InDeltaSlice(t, grads[1], grads[0], 1e-5)
		assert.Greater(t, slices.Max(out[0]), float32(0.5)) // there is something to compare
	}
}
