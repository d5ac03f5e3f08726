package nn_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// BenchmarkWarp transforms 16 images of 256x256 pixels with three channels, and their
// masks.
func BenchmarkWarp(b *testing.B) {
	const n, c, size = 16, 3, 256
	r := rand.New(rand.NewPCG(1, 0))
	params := make([]nn.WarpParams, n)
	for i := range params {
		plan, err := augment.Default().Draw(r).Plan(size, size, size)
		require.NoError(b, err)
		params[i] = warpOf(plan)
	}
	x := nn.Full(nn.CPU, nn.Float, 0.5, n, c, size, size)
	y := nn.Zeros(nn.CPU, nn.Byte, n, 1, size, size)
	b.ReportAllocs()
	for b.Loop() {
		nn.Scope(func() {
			warp := nn.NewWarp(nn.CPU, params, size, size)
			warp.Images(x)
			warp.Masks(y)
		})
	}
}

// BenchmarkAdam updates 42 million parameters in kernels of 2.4 million. The notebook's
// network has 43 million, most of them in kernels of about this size.
func BenchmarkAdam(b *testing.B) {
	var parameters []nn.Named
	for i := range 18 {
		p := nn.Full(nn.CPU, nn.Float, 0.1, 512, 512, 3, 3)
		nn.SetRequiresGrad(p, true)
		parameters = append(parameters, nn.Named{Name: fmt.Sprint(i), Tensor: p})
	}
	nn.Scope(func() {
		for _, p := range parameters {
			require.NoError(b, nn.Backward(nn.Mean(p.Tensor)))
		}
	})
	adam, err := nn.DefaultAdam().New([][]nn.Named{parameters})
	require.NoError(b, err)
	for b.Loop() {
		require.NoError(b, adam.Step([]nn.Hyper{{Rate: 1e-3, Momentum: 0.9, WeightDecay: 0.01}}))
	}
}

// BenchmarkUpsample computes the last upsampling of the notebook's network, with its
// concatenation, for two images of 256x256, by libtorch's operators and as one step.
func BenchmarkUpsample(b *testing.B) {
	up := nn.NewPixelShuffleICNR(nn.NewInit(nn.CPU, 1), 96, 96, nn.PixelShuffleOptions{})
	parameters := nn.Parameters(up)
	x, skip := nn.Full(nn.CPU, nn.Float, 0.1, 2, 96, 128, 128), nn.Full(nn.CPU, nn.Float, 0.1, 2, 3, 256, 256)
	nn.SetRequiresGrad(x, true)
	input := nn.Named{Name: "x", Tensor: x}
	for _, fused := range []bool{false, true} {
		for _, training := range []bool{false, true} {
			b.Run(fmt.Sprintf("fused=%t/training=%t", fused, training), func(b *testing.B) {
				defer shim.FusedLayers(shim.FusedLayers(fused))
				for b.Loop() {
					if !training {
						nn.Scope(func() { nn.NoGrad(func() { up.Join(nn.Eval, x, skip, false) }) })
						continue
					}
					nn.Scope(func() { require.NoError(b, nn.Backward(nn.Mean(up.Join(nn.Train, x, skip, false)))) })
					require.NoError(b, nn.DropGrad(append(parameters, input)))
				}
			})
		}
	}
}

// BenchmarkRead takes the scores of 16 images of 256x256 pixels into Go's memory.
func BenchmarkRead(b *testing.B) {
	scores := nn.Zeros(nn.CPU, nn.Float, 16, 2, 256, 256)
	read := func(b *testing.B, take func(*nn.Reading[float32]) error) {
		b.SetBytes(16 * 2 * 256 * 256 * 4)
		b.ReportAllocs()
		for b.Loop() {
			r, err := nn.BeginRead[float32](scores)
			require.NoError(b, err)
			require.NoError(b, take(r))
		}
	}
	b.Run("Values", func(b *testing.B) {
		read(b, func(r *nn.Reading[float32]) error {
			_, err := r.Values()
			return err
		})
	})
	b.Run("CopyTo", func(b *testing.B) {
		values := make([]float32, 16*2*256*256)
		read(b, func(r *nn.Reading[float32]) error { return r.CopyTo(values) })
	})
}
