package shim_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/hcunet/hcunet/internal/shim"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
	"github.com/wangkuiyi/gotorch/nn"
	F "github.com/wangkuiyi/gotorch/nn/functional"
	"github.com/wangkuiyi/gotorch/nn/initializer"
)

// leaf returns a tensor of three ones that records gradients.
func leaf(t *testing.T) torch.Tensor {
	t.Helper()
	x := filled(t, 1, 3)
	require.NoError(t, shim.SetRequiresGrad(x, true))
	return x
}

func TestBackward(t *testing.T) {
	x := leaf(t)
	require.NoError(t, shim.Backward(call(t, opSum, call(t, opMul, x, floats(t, []float32{1, 2, 5}, 3))), false))
	g, ok, err := shim.Grad(x)
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, []float32{1, 2, 5}, values(t, g))

	require.NoError(t, shim.SetGrad(x, torch.Tensor{}))
	_, ok, err = shim.Grad(x)
	require.NoError(t, err)
	assert.False(t, ok, "an absent gradient removes it")
}

func TestBackwardErrors(t *testing.T) {
	x := leaf(t)
	require.ErrorContains(t, shim.Backward(call(t, opMul, x, x), false), "scalar outputs")
	require.ErrorContains(t, shim.Backward(filled(t, 1), false), "does not require grad")
	loss := call(t, opSum, call(t, opMul, x, x))
	require.NoError(t, shim.Backward(loss, false))
	require.ErrorContains(t, shim.Backward(loss, false), "second time")
	require.ErrorContains(t, shim.SetRequiresGrad(loss, false), "leaf")
	require.ErrorContains(t, shim.SetGrad(x, filled(t, 1, 2)), "a tensor of Float[3] on cpu cannot have a gradient of Float[2] on cpu")
}

// Raw gotorch: an exception in Backward ends the process with gotorch's own
// library. Here it waits for the next call.
func TestRawBackwardOnNonScalar(t *testing.T) {
	if !child(t, 3*time.Minute) {
		return
	}
	locked(t)
	x := leaf(t)
	y := call(t, opMul, x, x)
	y.Backward()
	_, err := opSum.Call(x)
	require.ErrorContains(t, err, "Tensor.Backward: grad can be implicitly created only for scalar outputs")
	_, err = opSum.Call(x)
	require.NoError(t, err, "an error is reported once")

	y.Backward()
	assert.Contains(t, panicText(func() { torch.Mean(x) }), "scalar outputs", "gotorch's calls report it too")

	y.Backward()
	require.ErrorContains(t, shim.Pending(), "scalar outputs")
	require.NoError(t, shim.Pending())
}

// After a Backward that failed, the optimizer does not step on old gradients.
func TestRawStepAfterFailedBackward(t *testing.T) {
	locked(t)
	x := leaf(t)
	opt := torch.SGD(1, 0, 0, 0, false)
	opt.AddParameters([]torch.Tensor{x})
	require.NoError(t, shim.Backward(call(t, opSum, x), false))
	call(t, opMul, x, x).Backward()
	opt.Step()
	opt.ZeroGrad()
	require.ErrorContains(t, shim.Pending(), "Tensor.Backward: ")
	assert.Equal(t, []float32{1, 1, 1}, values(t, x))
	opt.Step()
	require.NoError(t, shim.Pending())
	assert.Equal(t, []float32{0, 0, 0}, values(t, x))
}

func TestRawOptimizerErrors(t *testing.T) {
	if !child(t, 3*time.Minute) {
		return
	}
	locked(t)
	x := leaf(t)

	bad := torch.SGD(-1, 0, 0, 0, false)
	require.ErrorContains(t, shim.Pending(), "SGD: Invalid learning rate")
	for name, use := range map[string]func(){
		"Step": bad.Step, "ZeroGrad": bad.ZeroGrad,
		"SetLR":         func() { bad.SetLR(1) },
		"AddParameters": func() { bad.AddParameters([]torch.Tensor{x}) },
	} {
		use()
		require.ErrorContains(t, shim.Pending(), "Optimizer."+name+": the optimizer is closed")
	}
	torch.Adam(1, 2, 0.9, 0)
	require.ErrorContains(t, shim.Pending(), "Adam: Invalid beta")

	opt := torch.SGD(0.1, 0, 0, 0, false)
	opt.AddParameters([]torch.Tensor{call(t, opMul, x, x)})
	require.ErrorContains(t, shim.Pending(), "Optimizer.AddParameters: can't optimize a non-leaf Tensor")

	// A gradient of another shape than its parameter cannot be stepped on.
	y := leaf(t)
	opt.AddParameters([]torch.Tensor{y})
	require.NoError(t, shim.Backward(call(t, opSum, y), false))
	require.NoError(t, shim.SetData(y, filled(t, 1, 2)))
	opt.Step()
	require.ErrorContains(t, shim.Pending(), "Optimizer.Step: ")
}

// With gotorch's own library Close and the finalizer free the optimizer twice.
func TestOptimizerCloseTwice(t *testing.T) {
	if !child(t, 3*time.Minute) {
		return
	}
	locked(t)
	for range 100 {
		opt := torch.Adam(0.1, 0.9, 0.999, 0)
		opt.AddParameters([]torch.Tensor{leaf(t)})
		opt.Close()
		opt.Close()
		opt.Step()
		require.ErrorContains(t, shim.Pending(), "the optimizer is closed")
	}
	for range 3 {
		runtime.GC()
		time.Sleep(20 * time.Millisecond) // finalizers run on a goroutine of their own
	}

	// Close does its work whatever error is waiting, and leaves that error alone.
	opt := torch.SGD(0.1, 0, 0, 0, false)
	x := leaf(t)
	call(t, opMul, x, x).Backward()
	opt.Close()
	require.ErrorContains(t, shim.Pending(), "Tensor.Backward")
	opt.Step()
	require.ErrorContains(t, shim.Pending(), "closed")
}

// gotorch's GC waits for the finalizer of every tensor made since the last one:
// a single tensor that is still in use, and it waits for ever.
func TestRawGCDoesNotHang(t *testing.T) {
	if !child(t, 3*time.Minute) {
		return
	}
	locked(t)
	torch.GC()
	kept := torch.RandN([]int64{3}, false)
	torch.GC()
	torch.FinishGC()
	assert.Len(t, kept.Shape(), 1)
	for range 50 {
		net := nn.Sequential(nn.Linear(3, 4, true), nn.Linear(4, 2, false))
		net.To(torch.NewDevice("cpu"), torch.Double)
		require.EqualValues(t, torch.Double, net.Parameters()[0].Dtype())
	}
}

// On one core gotorch's init asks for NumCPU/2 = 0 threads, which libtorch
// refuses with an exception that ended the process at import.
func TestImportOnOneCore(t *testing.T) {
	if !child(t, 3*time.Minute, "taskset", "-c", "0") {
		return
	}
	assert.Equal(t, 1, runtime.NumCPU())
	assert.Equal(t, 1, shim.Threads())
}

func TestSetThreads(t *testing.T) {
	locked(t)
	before := shim.Threads()
	t.Cleanup(func() { shim.SetThreads(before) })
	shim.SetThreads(1)
	assert.Equal(t, 1, shim.Threads())
	for _, n := range []int32{0, -3} {
		torch.SetNumThreads(n)
		shim.SetThreads(int(n))
		assert.Equal(t, 1, shim.Threads())
		require.NoError(t, shim.Pending())
	}
	libraries, err := os.ReadFile("/proc/self/maps")
	if err != nil || !strings.Contains(string(libraries), "libopenblas") {
		t.Skip("this libtorch has another BLAS than OpenBLAS")
	}
	for _, n := range []int{2, 1} {
		shim.SetThreads(n)
		assert.Equal(t, n, shim.BLASThreads())
	}
}

// Unless the environment says otherwise, an operator uses every core that Go does.
func TestThreadsDefault(t *testing.T) {
	t.Setenv("OMP_NUM_THREADS", "")
	t.Setenv("MKL_NUM_THREADS", "")
	if !child(t, 3*time.Minute) {
		return
	}
	assert.Equal(t, runtime.GOMAXPROCS(0), shim.Threads())
}

// nilTensors are the ways for a torch.Tensor to have nothing behind it.
func nilTensors() map[string]torch.Tensor {
	var emptied torch.Tensor
	shim.Scope(func() { emptied, _ = shim.FromSlice([]float32{1}, shim.Device{}, 1) })
	return map[string]torch.Tensor{
		"no handle":           {},
		"nil handle":          {T: new(unsafe.Pointer)},
		"after its scope":     emptied,
		"absent gotorch.Grad": torch.RandN([]int64{1}, true).Grad(),
	}
}

func TestNothingBehindTheTensor(t *testing.T) {
	if !child(t, 3*time.Minute) {
		return
	}
	locked(t)
	a := filled(t, 1, 1)
	for name, x := range nilTensors() {
		t.Run(name, func(t *testing.T) {
			for what, use := range map[string]func() error{
				"Call":            func() error { _, err := opMM.Call(x, a); return err },
				"Call, in a list": func() error { _, err := shim.NewOp("cat").Call([]torch.Tensor{a, x}, 0); return err },
				"ToSlice":         func() error { return shim.ToSlice(x, make([]float32, 1)) },
				"SetRequiresGrad": func() error { return shim.SetRequiresGrad(x, true) },
				"Backward":        func() error { return shim.Backward(x, false) },
				"Grad":            func() error { _, _, err := shim.Grad(x); return err },
				"SetGrad":         func() error { return shim.SetGrad(x, a) },
				"SetData":         func() error { return shim.SetData(x, a) },
				"SetData to":      func() error { return shim.SetData(a, x) },
			} {
				require.Error(t, use(), what)
			}
			require.NoError(t, shim.Pending())

			// What gotorch does with it must end in a panic that recover sees.
			for what, use := range map[string]func(){
				"Sigmoid": func() { torch.Sigmoid(x) }, "MM": func() { torch.MM(a, x) }, "Shape": func() { x.Shape() },
				"Item": func() { x.Item() }, "To": func() { x.To(torch.NewDevice("cpu")) }, "SetData": func() { a.SetData(x) },
				"Linear":   func() { F.Linear(x, a, torch.Tensor{}) },
				"Backward": func() { x.Backward(); torch.Mean(a) },
				"Stack":    func() { torch.Stack([]torch.Tensor{a, x}, 0) },
				"AddParameters": func() {
					opt := torch.SGD(1, 0, 0, 0, false)
					opt.AddParameters([]torch.Tensor{x})
					torch.Mean(a)
				},
			} {
				assert.NotEmpty(t, panicText(use), what)
			}
			require.NoError(t, shim.Pending())
		})
	}
	assert.Contains(t, panicText(func() { a.To(torch.Device{}) }), "nil device")
	assert.Contains(t, panicText(func() { torch.CUDAStream{}.Query() }), "nil stream")
}

func TestWrongShapesInGotorch(t *testing.T) {
	a, b := filled(t, 1, 2, 3), filled(t, 1, 2, 3)
	assert.Contains(t, panicText(func() { torch.MM(a, b) }), "cannot be multiplied")
	assert.Contains(t, panicText(func() { a.View(5) }), "invalid for input of size 6")
	assert.Contains(t, panicText(func() { torch.Empty([]int64{1 << 30, 1 << 20}, false) }), "not enough memory")
	assert.Contains(t, panicText(func() { F.CrossEntropy(a, b, torch.Tensor{}, -100, "median") }), `reduction is "median"`)
	assert.Contains(t, panicText(func() { initializer.KaimingUniform(&a, 0, "fan_up", "relu") }), `fan mode is "fan_up"`)
	assert.Contains(t, panicText(func() { torch.NewDevice("tpu") }), "tpu")
	assert.NotContains(t, panicText(func() { torch.MM(a, b) }), "\n", "one line, not a page of C++ frames")
}

func TestRawFileErrors(t *testing.T) {
	locked(t)
	path := filepath.Join(t.TempDir(), "absent", "x.pt")
	assert.NotEmpty(t, panicText(func() { torch.Load(path) }))
	filled(t, 1, 2).Save(path) // gotorch drops the returned text
	require.ErrorContains(t, shim.Pending(), "Tensor.Save: ")

	path = filepath.Join(t.TempDir(), "x.pt")
	filled(t, 7, 2).Save(path)
	require.NoError(t, shim.Pending())
	assert.Equal(t, []float32{7, 7}, values(t, torch.Load(path)))
	require.NoError(t, os.WriteFile(path, []byte("no archive"), 0o644))
	assert.NotEmpty(t, panicText(func() { torch.Load(path) }))
	var x torch.Tensor
	assert.NotEmpty(t, panicText(func() { _ = x.GobDecode([]byte("no pickle")) }))
	assert.NotEmpty(t, panicText(func() { _ = x.GobDecode(nil) }))
}

// absent is a CUDA device that no machine has.
func absent() shim.Device { return shim.Device{CUDA: true, Index: shim.CUDADevices() + 20} }

func TestWrongDevice(t *testing.T) {
	_, err := shim.FromSlice([]float32{1}, absent(), 1)
	require.ErrorContains(t, err, "there is no device cuda:")
	_, err = opEmpty.Call([]int64{1}, shim.None{}, shim.None{}, absent())
	require.ErrorContains(t, err, "there is no device cuda:")
	require.Error(t, shim.Synchronize(absent().Index))
	for _, index := range []int{-1, 1000} {
		_, err = shim.FromSlice([]float32{1}, shim.Device{CUDA: true, Index: index}, 1)
		require.ErrorContains(t, err, "cannot exist")
	}
	if shim.CUDADevices() > 0 {
		return
	}
	cuda := torch.NewDevice("cuda")
	a := filled(t, 1, 2)
	for name, use := range map[string]func(){
		"To": func() { a.To(cuda) }, "CopyTo": func() { a.CopyTo(cuda) }, "CUDA": func() { a.CUDA(cuda, false) },
		"NewCUDAStream": func() { torch.NewCUDAStream(cuda) },
	} {
		assert.Contains(t, panicText(use), "this libtorch sees 0 CUDA devices", name)
	}
}
