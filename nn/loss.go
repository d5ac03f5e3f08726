package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

var opCrossEntropy = shim.NewOp("cross_entropy_loss")

// CrossEntropy returns the mean over all pixels of -log softmax(logits)[target]:
// logits (N, K, H, W), target int64 (N, H, W) with classes 0 to K-1.
//
// Source: fastai 1.0.54, layers.py, CrossEntropyFlat(axis=1).
func CrossEntropy(logits, target torch.Tensor) torch.Tensor {
	return call(opCrossEntropy, logits, target)
}
