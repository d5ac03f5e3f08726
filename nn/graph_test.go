package nn_test

import (
	"fmt"
	"testing"

	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// A graph computes its results from the values that its operands have at each repetition,
// and a reading has the values of the moment at which it was asked for.
func TestGraph(t *testing.T) {
	x := float32Tensor(t, []float32{1, 2, 3}, 3)
	w := float32Tensor(t, []float32{4, 5, 6}, 3)
	nn.SetRequiresGrad(w, true)
	params := []nn.Named{{Name: "w", Tensor: w}}
	sum := nn.NewOp("sum")
	f := func() []torch.Tensor {
		y := sum.Call(nn.Mul(nn.Mul(x, x), w))
		if err := nn.Backward(y); err != nil {
			panic(err)
		}
		g, _ := nn.Grad(w)
		require.NoError(t, nn.DropGrad(params))
		return []torch.Tensor{nn.Detach(y), {}, g}
	}
	nn.Scope(func() { f() }) // a first time, outside of a recording
	graph, err := nn.Record(testdevice.Device, f)
	require.NoError(t, err)
	defer graph.Close()
	var readings []*nn.Reading[float64]
	for _, c := range []struct {
		x    []float32
		y    float64
		grad []float64
	}{{[]float32{1, 2, 3}, 78, []float64{1, 4, 9}}, {[]float32{0, 1, -2}, 29, []float64{0, 1, 4}}} {
		nn.Scope(func() {
			nn.CopyInto(x, float32Tensor(t, c.x, 3))
			results, err := graph.Replay()
			require.NoError(t, err)
			require.Len(t, results, 3)
			require.Equal(t, []float64{c.y}, values(t, results[0]))
			require.Nil(t, results[1].T)
			require.Equal(t, c.grad, values(t, results[2]))
			r, err := nn.BeginRead[float64](results[2])
			require.NoError(t, err)
			readings = append(readings, r)
			nn.CopyInto(results[2], nn.Zeros(testdevice.Device, nn.Float, 3))
		})
	}
	for i, want := range [][]float64{{1, 4, 9}, {0, 1, 4}} {
		got, err := readings[i].Values()
		require.NoError(t, err)
		require.Equal(t, want, got)
		_, err = readings[i].Values()
		require.ErrorContains(t, err, "taken before")
	}
}

func TestBeginReadRefuses(t *testing.T) {
	_, err := nn.BeginRead[float64](torch.Tensor{})
	require.Error(t, err)
	_, err = nn.BeginRead[float64](nn.Zeros(nn.Meta, nn.Float, 2))
	require.Error(t, err)
	r, err := nn.BeginRead[float64](nn.Zeros(nn.CPU, nn.Long, 0))
	require.NoError(t, err)
	v, err := r.Values()
	require.NoError(t, err)
	require.Empty(t, v)
}

func TestReadingCopyTo(t *testing.T) {
	two := float32Tensor(t, []float32{1, 2}, 2)
	begin := func() *nn.Reading[float32] {
		r, err := nn.BeginRead[float32](two)
		require.NoError(t, err)
		return r
	}
	got := make([]float32, 2)
	r := begin()
	require.NoError(t, r.CopyTo(got))
	require.Equal(t, []float32{1, 2}, got)
	require.ErrorContains(t, r.CopyTo(got), "taken before")
	for _, n := range []int{0, 1, 3} {
		require.ErrorContains(t, begin().CopyTo(make([]float32, n)), fmt.Sprintf("the slice has %d elements", n))
	}
}

// AddGrad adds to the gradients that are there, copies the others, and changes nothing that
// it was given.
func TestAddGrad(t *testing.T) {
	var params []nn.Named
	for _, name := range []string{"a", "b", "c"} {
		p := float32Tensor(t, []float32{1, 1}, 2)
		nn.SetRequiresGrad(p, true)
		params = append(params, nn.Named{Name: name, Tensor: p})
	}
	nn.SetGrad(params[0].Tensor, float32Tensor(t, []float32{1, 2}, 2))
	nn.SetGrad(params[2].Tensor, float32Tensor(t, []float32{5, 6}, 2))
	grads := []torch.Tensor{float32Tensor(t, []float32{10, 20}, 2), float32Tensor(t, []float32{30, 40}, 2), {}}
	for range 2 {
		require.NoError(t, nn.AddGrad(params, grads))
	}
	for i, want := range [][]float64{{21, 42}, {60, 80}, {5, 6}} {
		g, ok := nn.Grad(params[i].Tensor)
		require.True(t, ok)
		require.Equal(t, want, values(t, g))
	}
	require.Equal(t, []float64{10, 20}, values(t, grads[0]))
	require.Equal(t, []float64{30, 40}, values(t, grads[1]))
	require.NoError(t, nn.DropGrad(params))
	require.NoError(t, nn.AddGrad(params, make([]torch.Tensor, 3)))
	_, ok := nn.Grad(params[0].Tensor)
	require.False(t, ok)
}

// ClipGrad is ClipGradNorm, without reading the norm from the device.
func TestClipGrad(t *testing.T) {
	for _, limit := range []float64{0, 0.5, 100} {
		var params []nn.Named
		set := func() {
			params = params[:0]
			for i, shape := range [][]int64{{3}, {2, 2}, {1}} {
				p := noise(t, uint64(i), shape...)
				nn.SetRequiresGrad(p, true)
				if i < 2 {
					nn.SetGrad(p, noise(t, uint64(i+5), shape...))
				}
				params = append(params, nn.Named{Tensor: p})
			}
		}
		set()
		norm := values(t, nn.ClipGrad(params, limit))
		got := params[1].Tensor
		set()
		want, err := nn.GradNorm(params)
		require.NoError(t, err)
		if limit > 0 {
			_, err = nn.ClipGradNorm(params, limit)
			require.NoError(t, err)
		}
		require.Equal(t, []float64{want}, norm)
		a, _ := nn.Grad(got)
		b, _ := nn.Grad(params[1].Tensor)
		require.InDeltaSlice(t, values(t, b), values(t, a), 1e-6, "limit %v", limit)
	}
}
