package shim_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/hcunet/hcunet/internal/shim"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// child is for tests of what would end, hang or distort the test process: it
// reports whether this is the process of its own in which the test is to run,
// and otherwise starts that process, with words before its command line, and
// fails the test if that process crashes, fails or takes longer than limit.
func child(t *testing.T, limit time.Duration, words ...string) bool {
	t.Helper()
	const variable = "HCUNET_CHILD"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	if len(words) > 0 {
		if _, err := exec.LookPath(words[0]); err != nil {
			t.Skipf("%s is needed: %v", words[0], err)
		}
	}
	words = append(words, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	hung := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !hung.Stop() {
		t.Fatalf("hangs: no end after %v\n%s", limit, out.Bytes())
	}
	require.NoError(t, err, "%s", out.Bytes())
	require.Contains(t, out.String(), "PASS: "+t.Name())
	t.Logf("%s", out.Bytes())
	return false
}

// residentMB returns the resident memory of the process in MiB.
func residentMB(t *testing.T) float64 {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skipf("resident memory is read from /proc: %v", err)
	}
	pages, err := strconv.Atoi(string(bytes.Fields(statm)[1]))
	require.NoError(t, err)
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20)
}

// locked keeps the test on one thread, as pending errors and modes are the thread's.
func locked(t *testing.T) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

// panicText returns what f panics with, as gotorch does with errors.
func panicText(f func()) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = fmt.Sprint(r)
		}
	}()
	f()
	return ""
}

func floats(t *testing.T, data []float32, shape ...int64) torch.Tensor {
	t.Helper()
	x, err := shim.FromSlice(data, shim.Device{}, shape...)
	require.NoError(t, err)
	return x
}

// size returns the number of elements of a shape.
func size(shape []int64) int64 {
	n := int64(1)
	for _, extent := range shape {
		n *= extent
	}
	return n
}

// filled returns a tensor of n copies of v.
func filled(t *testing.T, v float32, shape ...int64) torch.Tensor {
	t.Helper()
	data := make([]float32, size(shape))
	for i := range data {
		data[i] = v
	}
	return floats(t, data, shape...)
}

func values(t *testing.T, x torch.Tensor) []float32 {
	t.Helper()
	info, err := shim.Inspect(x)
	require.NoError(t, err)
	v := make([]float32, size(info.Shape))
	require.NoError(t, shim.ToSlice(x, v))
	return v
}

func call(t *testing.T, op *shim.Op, args ...any) torch.Tensor {
	t.Helper()
	out, err := op.Call(args...)
	require.NoError(t, err)
	require.NotEmpty(t, out)
	return out[0]
}

var (
	opSum    = shim.NewOp("sum")
	opMul    = shim.NewOp("mul.Tensor")
	opMM     = shim.NewOp("mm")
	opRelu   = shim.NewOp("relu")
	opConv2d = shim.NewOp("conv2d")
	opEmpty  = shim.NewOp("empty.memory_format")
)

func TestCall(t *testing.T) {
	a := floats(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3)
	assert.Equal(t, []float32{6, 15}, values(t, call(t, shim.NewOp("sum.dim_IntList"), a, []int64{1}, false)))
	assert.Equal(t, []float32{1, 4, 2, 5, 3, 6}, values(t, call(t, shim.NewOp("transpose.int"), a, 0, 1)), "ToSlice is row-major whatever the strides")
	assert.Equal(t, []float32{1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6}, values(t, call(t, shim.NewOp("cat"), []torch.Tensor{a, a}, 1)))
	assert.Equal(t, []float32{2.5, 3.5, 4.5, 5.5, 6.5, 7.5}, values(t, call(t, shim.NewOp("add.Scalar"), a, 1.5)))

	x := filled(t, 1, 1, 1, 2, 3)
	w := filled(t, 2, 1, 1, 1, 1)
	absent := torch.Tensor{}
	assert.Equal(t, []float32{2, 2, 2, 2, 2, 2}, values(t, call(t, opConv2d, x, w, absent)), "a tensor without a handle is an absent bias")
	assert.Equal(t, []float32{2, 2, 2, 2, 2, 2}, values(t, call(t, opConv2d, x, w, shim.None{}, []int64{1, 1}, []int64{0, 0}, []int64{1, 1}, 1)))
}

func TestCallSeveralResults(t *testing.T) {
	a := floats(t, []float32{1, 9, 3, 4, 8, 6}, 2, 3)
	out, err := shim.NewOp("max.dim").Call(a, 1, false)
	require.NoError(t, err)
	require.Len(t, out, 2)
	assert.Equal(t, []float32{9, 8}, values(t, out[0]))
	index := make([]int64, 2)
	require.NoError(t, shim.ToSlice(out[1], index))
	assert.Equal(t, []int64{1, 1}, index)

	rows, err := shim.NewOp("unbind.int").Call(filled(t, 3, 100, 2), 0)
	require.NoError(t, err)
	require.Len(t, rows, 100)
	assert.Equal(t, []float32{3, 3}, values(t, rows[99]))
	_, err = shim.NewOp("unbind.int").Call(filled(t, 3, shim.MaxResults+1), 0)
	require.ErrorContains(t, err, "returned 4097 tensors")
}

func TestCallRejects(t *testing.T) {
	a := filled(t, 1, 2, 3)
	for _, c := range []struct {
		name string
		op   *shim.Op
		args []any
		want string
	}{
		{"no such operator", shim.NewOp("no_such_op"), nil, "no_such_op"},
		{"shapes", opMM, []any{a, a}, "cannot be multiplied"},
		{"missing argument", opMM, []any{a}, "mat2"},
		{"surplus argument", opMM, []any{a, a, a}, "3"},
		{"number for a tensor", opMM, []any{a, 2}, "Tensor"},
		{"tensor for a number", shim.NewOp("transpose.int"), []any{a, a, 1}, "int"},
		{"None for a tensor", opMM, []any{a, shim.None{}}, "Tensor"},
		{"nil tensor in a list", shim.NewOp("cat"), []any{[]torch.Tensor{a, {}}, 0}, "nil tensor"},
		{"empty list", shim.NewOp("cat"), []any{[]torch.Tensor{}, 0}, ""},
		{"memory", opEmpty, []any{[]int64{1 << 30, 1 << 20}}, ""},
		{"overflow", opEmpty, []any{[]int64{1 << 40, 1 << 40}}, ""},
		{"negative extent", opEmpty, []any{[]int64{3, -5}}, "-5"},
		{"too many arguments", opMM, make([]any, 17), "17 arguments"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.op.Call(c.args...)
			require.Error(t, err)
			var e *shim.Error
			require.ErrorAs(t, err, &e)
			assert.Contains(t, err.Error(), c.want)
			t.Log(err)
		})
	}
	assert.PanicsWithError(t, "shim: mm: argument 1 has type string", func() { _, _ = opMM.Call(a, "b") })
}

func TestVersion(t *testing.T) {
	assert.Regexp(t, `^\d+\.\d+`, shim.Version())
	t.Logf("libtorch %s, %d CUDA devices, %d threads", shim.Version(), shim.CUDADevices(), shim.Threads())
}

func TestSeed(t *testing.T) {
	draw := func(seed uint64) []float32 {
		require.NoError(t, shim.Seed(seed))
		return values(t, call(t, shim.NewOp("rand"), []int64{4}))
	}
	assert.Equal(t, draw(7), draw(7))
	assert.NotEqual(t, draw(7), draw(8))
}

// An operator may be looked up by several goroutines at once.
func TestOpIsSafeForGoroutines(t *testing.T) {
	op := shim.NewOp("neg")
	a := floats(t, []float32{1, -2}, 2)
	done := make(chan []float32)
	for range 8 {
		go func() { done <- values(t, call(t, op, a)) }()
	}
	for range 8 {
		assert.Equal(t, []float32{-1, 2}, <-done)
	}
}

func BenchmarkCallSmall(b *testing.B) {
	a, _ := shim.FromSlice([]float32{1}, shim.Device{})
	for b.Loop() {
		shim.Scope(func() { _, _ = opMul.Call(a, a) })
	}
}

func BenchmarkCallConv2dSmall(b *testing.B) {
	x, _ := shim.FromSlice(make([]float32, 16), shim.Device{}, 1, 1, 4, 4)
	w, _ := shim.FromSlice(make([]float32, 9), shim.Device{}, 1, 1, 3, 3)
	for b.Loop() {
		shim.Scope(func() {
			_, _ = opConv2d.Call(x, w, shim.None{}, []int64{1, 1}, []int64{1, 1}, []int64{1, 1}, 1)
		})
	}
}
