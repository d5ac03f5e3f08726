package resnet_test

import (
	"fmt"

	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
)

// Features returns five maps of an image with one channel, 64 rows and 96 columns.
func Example() {
	encoder := resnet.New18(nn.NewInit(nn.CPU, 1), 1)
	nn.Scope(func() {
		image := nn.Zeros(nn.CPU, nn.Float, 1, 1, 64, 96)
		nn.NoGrad(func() {
			for _, m := range encoder.Features(nn.Eval, image) {
				fmt.Println(nn.Shape(m))
			}
		})
	})
	// Output:
	// [1 64 32 48]
	// [1 64 16 24]
	// [1 128 8 12]
	// [1 256 4 6]
	// [1 512 2 3]
}
