package loss

import "github.com/hcunet/hcunet/nn"

// Reductions, by libtorch's numbers (at::Reduction).
const (
	reduceNone = 0
	reduceMean = 1
	reduceSum  = 2
)

// torch.nn.functional.cross_entropy: no class is ignored.
const noIgnore = -100

var (
	opAbs          = nn.NewOp("abs")
	opAminmax      = nn.NewOp("aminmax")
	opBCE          = nn.NewOp("binary_cross_entropy_with_logits")
	opCat          = nn.NewOp("cat")
	opClampMin     = nn.NewOp("clamp_min")
	opCrossEntropy = nn.NewOp("cross_entropy_loss")
	opCumsum       = nn.NewOp("cumsum")
	opEq           = nn.NewOp("eq.Tensor")
	opExpm1        = nn.NewOp("expm1")
	opGather       = nn.NewOp("gather")
	opGe           = nn.NewOp("ge.Scalar")
	opGt           = nn.NewOp("gt.Scalar")
	opIndexSelect  = nn.NewOp("index_select")
	opLog          = nn.NewOp("log")
	opLt           = nn.NewOp("lt.Scalar")
	opMeanDim      = nn.NewOp("mean.dim")
	opNe           = nn.NewOp("ne.Scalar")
	opNeg          = nn.NewOp("neg")
	opOr           = nn.NewOp("logical_or")
	opPow          = nn.NewOp("pow.Tensor_Scalar")
	opSort         = nn.NewOp("sort.stable")
	opSumDim       = nn.NewOp("sum.dim_IntList")
	opUnsqueeze    = nn.NewOp("unsqueeze")
	opWhere        = nn.NewOp("where.self")
)
