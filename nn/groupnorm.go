package nn

import (
	"fmt"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// A GroupNorm normalizes groups of channels of each image by itself, so that it
// does not depend on the batch and is the same in training and in evaluation.
//
// Source: Wu and He 2018, https://arxiv.org/abs/1803.08494; eps as
// torch.nn.GroupNorm.
type GroupNorm struct {
	Groups, C    int64
	weight, bias torch.Tensor
}

var opGroupNorm = shim.NewOp("group_norm")

// NewGroupNorm returns a norm of c channels in groups, which must divide them.
func NewGroupNorm(in *Init, groups, c int64) *GroupNorm {
	checkWidths("GroupNorm", groups, c)
	return &GroupNorm{
		Groups: checkGroups("GroupNorm", groups, c), C: c,
		weight: in.param(constant(1, c), c), bias: in.param(constant(0, c), c),
	}
}

// Forward normalizes x.
func (g *GroupNorm) Forward(_ Mode, x torch.Tensor) torch.Tensor {
	return call(opGroupNorm, x, g.Groups, g.weight, g.bias, batchNormEps)
}

// Walk shows weight and bias.
func (g *GroupNorm) Walk(w Walker) {
	w.Param("weight", g.weight)
	w.Param("bias", g.bias)
}

func (g *GroupNorm) String() string {
	return fmt.Sprintf("GroupNorm(%d, %d, eps=1e-05, affine=True)", g.Groups, g.C)
}
