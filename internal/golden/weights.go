package golden

import (
	"math"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
)

// Rule returns the center and scale of the formula weights of one entry of a
// state dict; batchNorm says whether it belongs to a batch norm.
//
// Source: ../shared/golden/README.md, table under "Formula tensors".
func Rule(name string, shape []int, batchNorm bool) (center, scale float64) {
	switch last := name[strings.LastIndexByte(name, '.')+1:]; {
	case last == "num_batches_tracked":
		return 0, 0
	case last == "running_mean", last == "bias":
		return 0, 0.1
	case last == "running_var":
		return 1, 0.5
	case last == "gamma":
		return 0.5, 0.25
	case last == "weight_g":
		return 1, 0.25
	case batchNorm:
		return 0.75, 0.25
	}
	fanIn := 1
	for _, d := range shape[1:] {
		fanIn *= d
	}
	return 0, math.Sqrt(4.5 / float64(fanIn))
}

// Weights overwrites the tensors of a checkpoint with the formula values of their
// names with the prefix. Tensors that are in shipped are taken from there
// instead.
func Weights(f *checkpoint.File, prefix string, shipped map[string]checkpoint.Tensor) {
	batchNorm := map[string]bool{}
	for _, t := range f.Tensors {
		if owner, ok := strings.CutSuffix(t.Name, ".running_mean"); ok {
			batchNorm[owner] = true
		}
	}
	for i, t := range f.Tensors {
		if s, ok := shipped["shipped."+t.Name]; ok {
			s.Name = t.Name
			f.Tensors[i] = s
			continue
		}
		n := len(t.Data) / t.DType.Size()
		owner := t.Name[:max(strings.LastIndexByte(t.Name, '.'), 0)]
		center, scale := Rule(t.Name, t.Shape, batchNorm[owner])
		f.Tensors[i] = checkpoint.FromFloat32(t.Name, Fill(prefix+t.Name, n, center, scale), t.Shape...)
	}
}
