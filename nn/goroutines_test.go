package nn_test

import (
	"sync"
	"testing"

	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// noise returns a tensor of normal random numbers.
func noise(t testing.TB, seed uint64, shape ...int64) torch.Tensor {
	t.Helper()
	r := random.New(seed, "images")
	v := make([]float32, product(shape))
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return float32Tensor(t, v, shape...)
}

// Goroutines that predict with one network at the same time each get exactly the result
// of a single prediction, and do not change any tensor of the network.
func TestPredictingAtOnce(t *testing.T) {
	net := chain(1)
	net.Forward(nn.Train, noise(t, 1, 2, 2, 9, 7)) // gives each channel its own statistics
	before := make([][]float64, 0)
	for _, n := range nn.State(net) {
		before = append(before, values(t, n.Tensor))
	}
	predict := func(seed uint64) (out []float64) {
		nn.NoGrad(func() {
			nn.Scope(func() { out = values(t, net.Forward(nn.Eval, noise(t, seed, 2, 2, 9, 7))) })
		})
		return out
	}
	for _, n := range []int{2, 8} {
		want := make([][]float64, n)
		for i := range want {
			want[i] = predict(uint64(i))
		}
		require.NotEqual(t, want[0], want[1])
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				for range 25 {
					assert.Equal(t, want[i], predict(uint64(i)))
				}
			})
		}
		all.Wait()
	}
	for i, n := range nn.State(net) {
		require.Equal(t, before[i], values(t, n.Tensor), n.Name)
	}
}

// Networks that are trained at the same time, each on its own goroutine, end with
// exactly the values that they end with when trained alone.
func TestTrainingAtOnce(t *testing.T) {
	train := func(seed uint64) (out [][]float64) {
		net := chain(seed)
		parameters := nn.Parameters(net)
		adam, err := nn.DefaultAdam().New([][]nn.Named{parameters})
		assert.NoError(t, err)
		for step := range uint64(10) {
			nn.Scope(func() {
				y := net.Forward(nn.Train, noise(t, step, 2, 2, 9, 7))
				assert.NoError(t, nn.Backward(nn.Mean(nn.Mul(y, y))))
			})
			assert.NoError(t, adam.Step([]nn.Hyper{{Rate: 1e-2, Momentum: 0.9}}))
			assert.NoError(t, nn.ZeroGrad(parameters))
		}
		for _, n := range nn.State(net) {
			out = append(out, values(t, n.Tensor))
		}
		return out
	}
	const n = 8
	want := make([][][]float64, n)
	for i := range want {
		want[i] = train(uint64(i))
	}
	require.NotEqual(t, want[0], want[1])
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { assert.Equal(t, want[i], train(uint64(i))) })
	}
	all.Wait()
}

// Train changes the count of batches, the running statistics and the singular vectors;
// Eval changes none of them.
func TestModes(t *testing.T) {
	require.Equal(t, nn.Eval, *new(nn.Mode), "the zero value is the one that changes nothing")
	for _, mode := range []nn.Mode{nn.Eval, nn.Train} {
		net := chain(1)
		var before [][]float64
		for _, n := range nn.State(net) {
			before = append(before, values(t, n.Tensor))
		}
		net.Forward(mode, noise(t, 1, 2, 2, 9, 7))
		for i, n := range nn.State(net) {
			if n.Buffer && mode == nn.Train {
				require.NotEqual(t, before[i], values(t, n.Tensor), n.Name)
			} else {
				require.Equal(t, before[i], values(t, n.Tensor), "%s in %v", n.Name, mode)
			}
		}
	}
}
