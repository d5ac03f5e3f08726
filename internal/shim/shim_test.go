package shim

import (
	"testing"

	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

func TestCall(t *testing.T) {
	a, err := FromSlice([]float32{1, 2, 3, 4, 5, 6}, Device{}, 2, 3)
	require.NoError(t, err)
	out, err := NewOp("sum.dim_IntList").Call(a, []int64{1}, false)
	require.NoError(t, err)
	got := make([]float32, 2)
	require.NoError(t, ToSlice(out[0], got))
	require.Equal(t, []float32{6, 15}, got)
	_, err = NewOp("mm").Call(a, a)
	require.Error(t, err)
	t.Log(err)
	require.NotEmpty(t, torch.MM(a, torch.Transpose(a, 0, 1)).String())
}
