package shim_test

import (
	"errors"
	"math"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/hcunet/hcunet/internal/shim"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
	F "github.com/wangkuiyi/gotorch/nn/functional"
)

func TestScope(t *testing.T) {
	outer := filled(t, 1, 2)
	var kept, lost torch.Tensor
	freed := shim.Scope(func() {
		lost = call(t, opMul, outer, outer)
		kept = torch.Sigmoid(lost) // gotorch's own calls are covered
		shim.Keep(kept, outer, torch.Tensor{})
	})
	assert.EqualValues(t, 1, freed)
	assert.Equal(t, []float32{1, 1}, values(t, outer))
	assert.InDelta(t, 0.731059, values(t, kept)[0], 1e-6)
	assert.ErrorContains(t, shim.ToSlice(lost, make([]float32, 2)), "empty tensor: the scope that it was made in has ended")
	assert.Contains(t, panicText(func() { torch.Sigmoid(lost) }), "scope")
}

// Memory of freed tensors is used again, and never more of it is kept than was used
// at one time.
func TestMemoryIsKept(t *testing.T) {
	const mib = 1 << 20
	opFull := shim.NewOp("full")
	make := func(n int64) { // n MiB, half and half
		shim.Scope(func() {
			shape := []int64{n * mib / 8}
			a, b := call(t, opFull, shape, 1.0), call(t, opFull, shape, 2.0)
			assert.EqualValues(t, 1, values(t, a)[shape[0]-1])
			assert.EqualValues(t, 2, values(t, b)[shape[0]-1])
		})
	}
	shim.ReleaseMemory()
	make(64)
	assert.EqualValues(t, 64*mib, shim.ReleaseMemory())
	assert.Zero(t, shim.ReleaseMemory())
	for range 10 {
		make(64)
		make(60)
		make(40)
	}
	assert.EqualValues(t, 64*mib, shim.ReleaseMemory())

	make(1) // half a MiB each is too small
	assert.Zero(t, shim.ReleaseMemory())
}

// TestMemoryIsDivided: two tensors take the parts of one that was freed, and one takes the whole
// of two.
func TestMemoryIsDivided(t *testing.T) {
	const half = 4 << 20 // elements
	shim.ReleaseMemory()
	shim.Scope(func() { call(t, shim.NewOp("full"), []int64{2 * half}, 5.0) })
	shim.Scope(func() {
		small := call(t, shim.NewOp("empty.memory_format"), []int64{half})
		assert.EqualValues(t, 5, values(t, small)[half-1], "this memory was not there before")
		call(t, shim.NewOp("full"), []int64{half}, 6.0)
	})
	shim.Scope(func() {
		whole := values(t, call(t, shim.NewOp("empty.memory_format"), []int64{2 * half}))
		assert.ElementsMatch(t, []float32{5, 6}, []float32{whole[half/2], whole[half+half/2]})
	})
	assert.EqualValues(t, 2*half*4, shim.ReleaseMemory())
}

func TestScopesNest(t *testing.T) {
	var fromInner, toTop torch.Tensor
	shim.Scope(func() {
		outer := filled(t, 5, 1)
		freed := shim.Scope(func() {
			fromInner, toTop = filled(t, 2, 1), filled(t, 3, 1)
			shim.Keep(fromInner, toTop, outer) // outer is not the inner scope's to keep
			filled(t, 4, 1)
		})
		assert.EqualValues(t, 1, freed)
		assert.Equal(t, []float32{2}, values(t, fromInner))
		shim.Keep(toTop)
	})
	assert.Equal(t, []float32{3}, values(t, toTop))
	require.Error(t, shim.ToSlice(fromInner, make([]float32, 1)), "one Keep reaches the outer scope only")

	var outer torch.Tensor
	shim.Scope(func() {
		outer = filled(t, 5, 1)
		shim.Scope(func() { shim.Keep(outer) })
	})
	require.Error(t, shim.ToSlice(outer, make([]float32, 1)), "an inner keep does not move a tensor of the outer scope")
}

func TestScopePanics(t *testing.T) {
	base := shim.LiveHandles()
	boom := errors.New("boom")
	var inside torch.Tensor
	assert.PanicsWithValue(t, boom, func() {
		shim.Scope(func() {
			shim.Scope(func() {
				inside = filled(t, 1, 1)
				panic(boom)
			})
		})
	})
	require.Error(t, shim.ToSlice(inside, make([]float32, 1)))
	after := filled(t, 1, 1)
	shim.Scope(func() {})
	assert.Equal(t, []float32{1}, values(t, after), "no scope was left open")
	assert.LessOrEqual(t, shim.LiveHandles(), base+2)

	shim.Keep(after) // there is no scope: nothing to do
	assert.Equal(t, []float32{1}, values(t, after))
}

// The gradient of a kept loss still flows when the scope has emptied the
// tensors between, as these belong to the graph too.
func TestKeptTensorKeepsItsGraph(t *testing.T) {
	x := leaf(t)
	var loss torch.Tensor
	shim.Scope(func() {
		loss = call(t, opSum, call(t, opMul, x, call(t, opMul, x, x)))
		shim.Keep(loss)
	})
	require.NoError(t, shim.Backward(loss, false))
	g, _, err := shim.Grad(x)
	require.NoError(t, err)
	assert.Equal(t, []float32{3, 3, 3}, values(t, g))
}

func TestScopesOnSeveralGoroutines(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				x := filled(t, float32(i), 16)
				var sum torch.Tensor
				freed := shim.Scope(func() {
					runtime.Gosched()
					sum = call(t, opSum, call(t, opMul, x, x))
					shim.Keep(sum)
				})
				assert.EqualValues(t, 1, freed)
				assert.Equal(t, []float32{float32(16 * i * i)}, values(t, sum))
			}
		})
	}
	wg.Wait()
}

// Live handles come back to where they were: after scopes as soon as Go has
// collected the empty ones, without scopes after the grace period as well.
func TestLiveHandlesComeBack(t *testing.T) {
	if !child(t, 3*time.Minute) {
		return
	}
	x := filled(t, 1, 4)
	base := shim.LiveHandles()
	for range 100 {
		shim.Scope(func() { call(t, opMul, x, filled(t, 2, 4)) })
		torch.Ones([]int64{4}, false)
	}
	assert.Greater(t, shim.LiveHandles(), base)
	assert.Eventually(t, func() bool {
		runtime.GC()
		_, err := shim.Inspect(x) // any call empties what was closed before
		return err == nil && shim.LiveHandles() == base
	}, 20*time.Second, 100*time.Millisecond)
}

// gotorch's Go code does not keep its operands alive. With its own library a
// collection frees them while C++ reads them: this loop crashed 5 times of 5.
func TestConcurrentCollection(t *testing.T) {
	if !child(t, 3*time.Minute) {
		return
	}
	stop := make(chan struct{})
	var collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	mk := func() torch.Tensor { return torch.Full([]int64{1000}, 0, false) }
	wrong, n := 0, 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); n++ {
		x := torch.Sigmoid(mk())
		x = torch.Add(x.Sum(), torch.MM(torch.Full([]int64{1, 2}, 3, false), torch.Full([]int64{2, 1}, 1, false)), 1)
		if values(t, x)[0] != 506 {
			wrong++
		}
	}
	close(stop)
	collector.Wait()
	assert.Zero(t, wrong, "of %d", n)
	assert.Greater(t, n, 100)
}

// What Go drops inside an open scope lives to the scope's end.
func TestDroppedInsideScope(t *testing.T) {
	var freed int64
	freed = shim.Scope(func() {
		for range 10 {
			torch.Ones([]int64{4}, false)
		}
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
		runtime.GC()
	})
	assert.EqualValues(t, 10, freed)
}

// trainStep is one step of a small convolutional net: 5 MiB of tensors.
func trainStep(t *testing.T, opt torch.Optimizer, x torch.Tensor, w []torch.Tensor) {
	one := []int64{1, 1}
	h := x
	for _, weight := range w {
		h = call(t, opRelu, call(t, opConv2d, h, weight, shim.None{}, one, one, one, 1))
	}
	opt.ZeroGrad()
	loss := torch.Mean(torch.Mul(h, h))
	require.NoError(t, shim.Backward(loss, false))
	opt.Step()
	require.NoError(t, shim.Pending())
}

// With the collector switched off, so that scopes do all the work, 80 more
// steps of training must not need more memory than 20 steps did.
func TestTrainingLoopMemoryIsFlat(t *testing.T) {
	if !child(t, 10*time.Minute) {
		return
	}
	locked(t)
	shim.SetThreads(1)
	debug.SetGCPercent(-1)
	x := torch.RandN([]int64{4, 1, 48, 48}, false)
	w := []torch.Tensor{
		torch.RandN([]int64{16, 1, 3, 3}, true), torch.RandN([]int64{16, 16, 3, 3}, true), torch.RandN([]int64{1, 16, 3, 3}, true),
	}
	opt := torch.SGD(1e-6, 0.9, 0, 0, false)
	opt.AddParameters(w)

	step := func(n int) {
		for range n {
			shim.Scope(func() { trainStep(t, opt, x, w) })
		}
	}
	step(20)
	at20, live := residentMB(t), shim.LiveHandles()
	step(80)
	at100 := residentMB(t)
	t.Logf("resident %.1f MiB after 20 steps, %.1f after 100; %d handles more", at20, at100, shim.LiveHandles()-live)
	// What grows is Go's own garbage, about 1 kB a call, as nothing collects it.
	assert.Less(t, at100-at20, 16.0)

	// That the measurement can fail: the same without scopes.
	for range 25 {
		trainStep(t, opt, x, w)
	}
	t.Logf("resident %.1f MiB after 25 steps without scopes", residentMB(t))
	assert.Greater(t, residentMB(t)-at100, 50.0)
}

// gotorch never frees the C strings and buffers that it makes for a call.
func TestWhatGotorchLeaks(t *testing.T) {
	if !child(t, 5*time.Minute) {
		return
	}
	locked(t)
	long := strings.Repeat("x", 1<<18) // for calls that fail, as their names are short
	payload, err := filled(t, 1, 1<<20).GobEncode()
	require.NoError(t, err)
	logits, target := filled(t, 1, 2, 3), torch.FromBlob(unsafe.Pointer(&[]int64{0, 2}[0]), torch.Long, []int64{2})
	for what, c := range map[string]struct {
		n     int
		leaks float64 // MiB a call, if nothing were freed
		use   func()
	}{
		"NewDevice":          {150_000, 64. / (1 << 20), func() { torch.NewDevice("cpu") }},
		"NewDevice, long":    {100, 0.25, func() { panicText(func() { torch.NewDevice(long) }) }},
		"Load, long":         {100, 0.25, func() { panicText(func() { torch.Load(long) }) }},
		"CrossEntropy, long": {100, 0.25, func() { panicText(func() { F.CrossEntropy(logits, target, torch.Tensor{}, -100, long) }) }},
		"GobDecode": {40, 4, func() {
			var x torch.Tensor
			require.NoError(t, x.GobDecode(payload))
		}},
	} {
		t.Run(what, func(t *testing.T) {
			use := func() {
				for range c.n {
					shim.Scope(func() { c.use() })
				}
				debug.FreeOSMemory()
			}
			// What leaks does so every time; malloc may take more for its own ends once
			// or twice.
			use()
			limit, grown := c.leaks*float64(c.n)/3, math.Inf(1)
			for try := 0; try < 5 && grown >= limit; try++ {
				before := residentMB(t)
				use()
				grown = residentMB(t) - before
			}
			assert.Less(t, grown, limit, "MiB in %d calls", c.n)
		})
	}
}

func TestNoGradIsOfTheThread(t *testing.T) {
	assert.True(t, shim.GradEnabled())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 500 {
				if i%2 == 0 {
					assert.True(t, shim.GradEnabled())
					runtime.Gosched()
					continue
				}
				shim.NoGrad(func() {
					runtime.Gosched()
					assert.False(t, shim.GradEnabled())
					shim.NoGrad(func() {})
					assert.False(t, shim.GradEnabled())
				})
			}
		})
	}
	wg.Wait()
	assert.Panics(t, func() { shim.NoGrad(func() { panic("boom") }) })
	assert.True(t, shim.GradEnabled())

	x := leaf(t)
	shim.NoGrad(func() {
		info, err := shim.Inspect(call(t, opMul, x, x))
		require.NoError(t, err)
		assert.False(t, info.RequiresGrad)
	})
}

func TestAutocastIsOfTheThread(t *testing.T) {
	locked(t)
	const bfloat16 = 15 // c10::ScalarType::BFloat16
	a := filled(t, 1, 2, 2)
	dtype := func() int8 { return call(t, opMM, a, a).Dtype() }
	require.NoError(t, shim.Autocast(false, bfloat16, func() {
		assert.EqualValues(t, bfloat16, dtype())
		require.NoError(t, shim.Autocast(false, bfloat16, func() {}))
		assert.EqualValues(t, bfloat16, dtype(), "an inner one restores the outer one")
		other := make(chan int8)
		go func() { other <- dtype() }()
		assert.EqualValues(t, torch.Float, <-other)
	}))
	assert.EqualValues(t, torch.Float, dtype())

	// Restoring is not lost to an error that waits for its report.
	require.NoError(t, shim.Autocast(false, bfloat16, a.Backward))
	require.ErrorContains(t, shim.Pending(), "does not require grad")
	assert.EqualValues(t, torch.Float, dtype())
	assert.Panics(t, func() { _ = shim.Autocast(false, bfloat16, func() { panic("boom") }) })
	assert.EqualValues(t, torch.Float, dtype())
}
