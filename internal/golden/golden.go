// Package golden gives tests the reference vectors and the real data in
// ../shared, next to the repository, and the formula tensors, which need no
// file.
//
// If ../shared is absent, a test that needs it is skipped with a message; with
// HCUNET_SHARED=require in the environment it fails instead.
package golden

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"golang.org/x/sys/cpu"
)

// Long returns whether to run the tests that take minutes and add little, such as
// all variants of a network instead of a few. `make test-long` sets this.
func Long() bool { return os.Getenv("HCUNET_LONG") != "" }

// Processes skips a test of several processes where err says that there can be none, as
// dist.Available does; with HCUNET_GLOO=require in the environment it fails instead.
func Processes(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("HCUNET_GLOO") == "require" {
		t.Fatalf("HCUNET_GLOO=require, but %v", err)
	}
	t.Skip(err)
}

// AVX2 skips a test of code for processors with AVX2 where this one has none. It asks the
// processor, not the code.
func AVX2(t testing.TB) {
	t.Helper()
	if !cpu.X86.HasAVX2 || !cpu.X86.HasFMA {
		t.Skip("this processor has no AVX2")
	}
}

// Path returns the path of a file or folder under ../shared, such as
// "golden/b7_rle/rle.json", or skips the test.
func Path(t testing.TB, rel string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	p := filepath.Join(filepath.Dir(here), "..", "..", "..", "shared", filepath.FromSlash(rel))
	if _, err := os.Stat(p); err != nil {
		if os.Getenv("HCUNET_SHARED") == "require" {
			t.Fatalf("HCUNET_SHARED=require, but %v", err)
		}
		t.Skipf("../shared/%s is not here: %v", rel, err)
	}
	return p
}

// JSON decodes a file under ../shared/golden into v.
func JSON(t testing.TB, rel string, v any) {
	t.Helper()
	b, err := os.ReadFile(Path(t, "golden/"+rel))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", rel, err)
	}
}

// Tensors reads a safetensors file under ../shared/golden.
func Tensors(t testing.TB, rel string) map[string]checkpoint.Tensor {
	t.Helper()
	f, err := checkpoint.OpenSafetensors(Path(t, "golden/"+rel))
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]checkpoint.Tensor, len(f.Tensors))
	for _, x := range f.Tensors {
		m[x.Name] = x
	}
	return m
}

// Float64s returns the elements of a golden tensor. It fails the test if name
// is not in m.
func Float64s(t testing.TB, m map[string]checkpoint.Tensor, name string) []float64 {
	t.Helper()
	x, ok := m[name]
	if !ok {
		t.Fatalf("no golden tensor %q", name)
	}
	v, err := x.Float64s()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Unit returns the n formula values of name, in [-1, 1): 24 bits of each number
// of a splitmix64 stream whose seed is the FNV-1a hash of the name.
//
// Source: ../shared/golden/README.md, "Formula tensors".
func Unit(name string, n int) []float32 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	out := make([]float32, n)
	for i := range out {
		z := h + uint64(i+1)*0x9E3779B97F4A7C15
		z ^= z >> 30
		z *= 0xBF58476D1CE4E5B9
		z ^= z >> 27
		z *= 0x94D049BB133111EB
		z ^= z >> 31
		out[i] = float32(int64(z>>40)-(1<<23)) / (1 << 23)
	}
	return out
}

// Fill returns center + scale*Unit(name), rounded to float32 after the
// multiplication and after the addition, as the reference does.
func Fill(name string, n int, center, scale float64) []float32 {
	out := Unit(name, n)
	for i, v := range out {
		v = float32(v * float32(scale))
		if center != 0 {
			v = float32(float32(center) + v)
		}
		out[i] = v
	}
	return out
}

// Close fails the test unless got and want agree within tol times the largest
// magnitude in want; it names the worst element. It returns the largest error,
// relative to that magnitude.
func Close[G, W float32 | float64](t testing.TB, what string, got []G, want []W, tol float64) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	scale, worst, at := 0.0, 0.0, 0
	for i, w := range want {
		scale = max(scale, math.Abs(float64(w)))
		if d := math.Abs(float64(got[i]) - float64(w)); d > worst || math.IsNaN(d) {
			worst, at = d, i
		}
	}
	if scale == 0 {
		scale = 1
	}
	if !(worst/scale <= tol) {
		t.Errorf("%s: element %d is %v, want %v: error %.3g of the largest magnitude %.3g, tolerance %.3g",
			what, at, got[at], want[at], worst/scale, scale, tol)
	}
	return worst / scale
}
