package shim_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/shim"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// A step is refused, and changes nothing, where the loop cannot make it: for float64, for
// another shape, and for moments in another memory format than their parameter; the gradient
// may have any. Package nn compares its numbers.
func TestAdamRefuses(t *testing.T) {
	one := func(x torch.Tensor) []torch.Tensor { return []torch.Tensor{x} }
	golden.AVX2(t)
	a := shim.Adam{Beta1: 0.9, Beta2: 0.99, Size: 1, Root: 1, Eps: 1e-8, Keep: 1}
	p, g := filled(t, 1, 2, 3), filled(t, 1, 2, 3)
	done, err := a.Step(one(p), one(g), one(filled(t, 0, 2, 3)), one(filled(t, 0, 2, 3)))
	require.NoError(t, err)
	require.True(t, done)
	require.InDelta(t, 0, values(t, p)[5], 1e-6) // 1 - 0.1/sqrt(0.01)

	transposed := call(t, shim.NewOp("t"), floats(t, []float32{1, -1, 1, -1, 1, -1}, 3, 2)) // rows of 1 and of -1
	p = filled(t, 1, 2, 3)
	done, err = a.Step(one(p), one(transposed), one(filled(t, 0, 2, 3)), one(filled(t, 0, 2, 3)))
	require.NoError(t, err)
	require.True(t, done)
	require.InDeltaSlice(t, []float32{0, 0, 0, 2, 2, 2}, values(t, p), 1e-6)

	p = filled(t, 1, 2, 3)
	done, err = a.Step(one(p), one(g), one(transposed), one(filled(t, 0, 2, 3)))
	require.NoError(t, err)
	require.False(t, done)
	for name, g := range map[string]torch.Tensor{"float64": call(t, shim.NewOp("to.dtype"), g, 7), "shape": filled(t, 1, 6)} {
		done, err := a.Step(one(p), one(g), one(filled(t, 0, 2, 3)), one(filled(t, 0, 2, 3)))
		require.NoError(t, err, name)
		require.False(t, done, name)
	}
	require.EqualValues(t, 1, values(t, p)[0])
	_, err = a.Step(one(p), nil, one(p), one(p))
	require.ErrorContains(t, err, "0 tensors for 1 parameters")
	_, err = a.Step(one(p), one(torch.Tensor{}), one(p), one(p))
	require.Error(t, err)
}

// A large parameter is stepped in shares, by several threads: neither they nor its being in
// one piece changes a bit.
func TestAdamInShares(t *testing.T) {
	golden.AVX2(t)
	threads := shim.Threads()
	t.Cleanup(func() { shim.SetThreads(threads) })
	const n, piece = 200_003, 1001 // more than three shares, and no multiple of one
	data := make([][]float32, 4)   // parameter, gradient, moments
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		for range n {
			data[i] = append(data[i], rng.Float32()+0.1)
		}
	}
	a := shim.Adam{Beta1: 0.9, Beta2: 0.99, Size: 0.01, Root: 0.9, Eps: 1e-8, Keep: 0.999}
	step := func(size int) (all []float32) {
		var lists [4][]torch.Tensor
		for i, values := range data {
			for part := range slices.Chunk(values, size) {
				lists[i] = append(lists[i], floats(t, part, int64(len(part))))
			}
		}
		done, err := a.Step(lists[0], lists[1], lists[2], lists[3])
		require.NoError(t, err)
		require.True(t, done)
		for _, p := range lists[0] {
			all = append(all, values(t, p)...)
		}
		return all
	}
	shim.SetThreads(1)
	want := step(piece)
	require.NotEqual(t, data[0], want)
	for _, k := range []int{1, 3} {
		shim.SetThreads(k)
		require.Equal(t, want, step(n), "%d threads", k)
	}
}
