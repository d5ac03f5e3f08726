package nn_test

import (
	"math/rand/v2"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// Sixteen images of 256x256 with three channels, and their masks.
func BenchmarkWarp(b *testing.B) {
	const n, c, size = 16, 3, 256
	r := rand.New(rand.NewPCG(1, 0))
	params := make([]nn.WarpParams, n)
	for i := range params {
		plan, err := augment.Config{}.Draw(r).Plan(size, size, size)
		require.NoError(b, err)
		params[i] = warpOf(plan)
	}
	x := nn.Full(nn.CPU, nn.Float, 0.5, n, c, size, size)
	y := nn.Zeros(nn.CPU, nn.Byte, n, 1, size, size)
	b.ReportAllocs()
	for b.Loop() {
		nn.Scope(func(func(...torch.Tensor)) {
			warp := nn.NewWarp(nn.CPU, params, size, size, nn.WarpReflection)
			warp.Images(x)
			warp.Masks(y)
		})
	}
}
