package unet_test

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/nn"
	"github.com/stretchr/testify/require"
)

// extracts names the options that a short test run compares; a long one compares all.
var extracts = []string{"default", "bottle", "last_cross_false", "no_hypercolumns", "norm_batch", "norm_weight"}

// TestExtract compares each network with a few numbers of the reference, which
// testdata/extract.py chose, so that a clone without ../shared has a test as well. There
// is no formula for singular vectors, so for networks with spectral norm or
// self-attention, which uses it, only names and shapes are compared.
func TestExtract(t *testing.T) {
	var extract map[string]struct {
		Tensors   int
		Names     string // FNV-1a of all lines "name [shape]", one for each tensor
		Index     []int
		Scores    []float64 // at Index, of the 64x64 inputs
		Largest   float64   // the largest magnitude of all scores
		Loss      float64
		Norm      float64            // norm of all gradients
		Gradients map[string]float64 // norms of a few gradients
	}
	readJSON(t, "testdata/extract.json", &extract)
	names := slices.Sorted(maps.Keys(extract))
	require.Len(t, names, len(options))
	for _, name := range names {
		if !golden.Long() && !slices.Contains(extracts, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			want := extract[name]
			cfg := options[name]
			cfg.DetachSkips = true
			net := kernelNet(cfg, nn.Float)
			hash := fnv.New64a()
			state := nn.State(net)
			for _, n := range state {
				fmt.Fprintf(hash, "%s %s\n", n.Name, strings.ReplaceAll(fmt.Sprint(nn.Shape(n.Tensor)), " ", ", "))
			}
			require.Len(t, state, want.Tensors)
			require.Equal(t, want.Names, fmt.Sprintf("%016x", hash.Sum64()))
			if slices.ContainsFunc(state, func(n nn.Named) bool { return strings.HasSuffix(n.Name, ".weight_u") }) {
				return
			}
			formula(t, net, nil)
			out := forward(t, net, nn.Float, "input.64", 2, 3, 64, 64)
			for i, at := range want.Index {
				require.InDelta(t, want.Scores[i], out[at], tolerance32*want.Largest)
			}
			if want.Loss == 0 {
				return
			}
			_, loss := trainStep(t, net, nn.Float)
			lossTolerance, tolerance, _ := stepTolerances(nn.Float, name)
			require.InDelta(t, want.Loss, loss, lossTolerance)
			whole, err := nn.GradNorm(nn.Parameters(net))
			require.NoError(t, err)
			golden.Close(t, "norm of all gradients", []float64{whole}, []float64{want.Norm}, tolerance)
			for _, p := range nn.Parameters(net) {
				norm, ok := want.Gradients[p.Name]
				if !ok {
					continue
				}
				g, ok := nn.Grad(p.Tensor)
				require.True(t, ok)
				sum := 0.0
				for _, v := range values(t, g) {
					sum += v * v
				}
				golden.Close(t, p.Name, []float64{math.Sqrt(sum)}, []float64{norm}, tolerance)
			}
		})
	}
}
