package shim

import (
	"testing"

	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
	"golang.org/x/sys/cpu"
)

// A step is refused, and changes nothing, where the loop cannot make it: for float64, for
// another shape, and for moments in another memory format than their parameter; the gradient
// may have any. Package nn compares its numbers.
func TestAdamRefuses(t *testing.T) {
	one := func(x torch.Tensor) []torch.Tensor { return []torch.Tensor{x} }
	if !cpu.X86.HasAVX2 || !cpu.X86.HasFMA {
		t.Skip("this processor has no AVX2")
	}
	a := Adam{Beta1: 0.9, Beta2: 0.99, Size: 1, Root: 1, Eps: 1e-8, Keep: 1}
	p, g := filled(t, 1, 2, 3), filled(t, 1, 2, 3)
	done, err := a.Step(one(p), one(g), one(filled(t, 0, 2, 3)), one(filled(t, 0, 2, 3)))
	require.NoError(t, err)
	require.True(t, done)
	require.InDelta(t, 0, values(t, p)[5], 1e-6) // 1 - 0.1/sqrt(0.01)

	transposed := call(t, NewOp("t"), floats(t, []float32{1, -1, 1, -1, 1, -1}, 3, 2)) // rows of 1 and of -1
	p = filled(t, 1, 2, 3)
	done, err = a.Step(one(p), one(transposed), one(filled(t, 0, 2, 3)), one(filled(t, 0, 2, 3)))
	require.NoError(t, err)
	require.True(t, done)
	require.InDeltaSlice(t, []float32{0, 0, 0, 2, 2, 2}, values(t, p), 1e-6)

	p = filled(t, 1, 2, 3)
	done, err = a.Step(one(p), one(g), one(transposed), one(filled(t, 0, 2, 3)))
	require.NoError(t, err)
	require.False(t, done)
	for name, g := range map[string]torch.Tensor{"float64": call(t, NewOp("to.dtype"), g, 7), "shape": filled(t, 1, 6)} {
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
