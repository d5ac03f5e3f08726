package nn

import (
	"fmt"

	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

// A GroupNorm divides the channels of each image into groups and normalizes each
// group by its own mean and variance. It does not depend on the other images of the
// batch and computes the same in training and in evaluation.
//
// Source: Wu and He 2018, https://arxiv.org/abs/1803.08494; eps as
// torch.nn.GroupNorm.
type GroupNorm struct {
	Groups, C    int64
	weight, bias torch.Tensor
}

var opGroupNorm = shim.NewOp("group_norm")

// NewGroupNorm returns a norm of c channels in groups. It panics if groups does not
// divide c.
func NewGroupNorm(in *Init, groups, c int64) *GroupNorm {
	checkWidths("GroupNorm", groups, c)
	return &GroupNorm{
		Groups: checkGroups("GroupNorm", groups, c), C: c,
		weight: in.param(constant(1, c), c), bias: in.param(constant(0, c), c),
	}
}

// Forward normalizes x (N, C, ...).
func (g *GroupNorm) Forward(_ Mode, x torch.Tensor) torch.Tensor {
	return call(opGroupNorm, x, g.Groups, g.weight, g.bias, batchNormEps)
}

// Walk shows the weight and the bias.
func (g *GroupNorm) Walk(w Walker) {
	w.Param("weight", g.weight)
	w.Param("bias", g.bias)
}

func (g *GroupNorm) String() string {
	return fmt.Sprintf("GroupNorm(%d, %d, eps=1e-05, affine=True)", g.Groups, g.C)
}
