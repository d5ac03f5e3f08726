package hypercolumn_test

import (
	"fmt"

	"github.com/hcunet/hcunet/hypercolumn"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// Two decoder maps of 8 and 4 channels are reduced to 3 channels and concatenated with a
// full-size map of 3 channels; a 1x1 convolution computes the scores of two classes.
// Project computes the same scores without the concatenated tensor.
func Example() {
	in := nn.NewInit(nn.CPU, 0)
	columns := hypercolumn.New(in, []int64{8, 4}, 3)
	decide := nn.NewConv2d(in, columns.Width(), 2, 1, nil)

	nn.Scope(func() {
		maps := []torch.Tensor{
			nn.Zeros(nn.CPU, nn.Float, 1, 8, 4, 6),
			nn.Zeros(nn.CPU, nn.Float, 1, 4, 8, 12),
		}
		x := nn.Zeros(nn.CPU, nn.Float, 1, 3, 16, 24)
		fmt.Println(nn.Shape(columns.Forward(nn.Eval, maps, x)))
		fmt.Println(nn.Shape(columns.Project(nn.Eval, maps, x, decide.Weight(nn.Eval), decide.Bias)))
	})
	// Output:
	// [1 9 16 24]
	// [1 2 16 24]
}
