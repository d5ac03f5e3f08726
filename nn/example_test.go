package nn_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// A network can be a Sequential of layers. Its tensors have PyTorch's names.
func Example() {
	in := nn.NewInit(nn.CPU, 1)
	net := nn.Sequential{
		nn.NewConv2d(in, 1, 4, 3, &nn.ConvOptions{Padding: 1, NoBias: true}),
		nn.NewBatchNorm2d(in, 4, nil),
		nn.Activation{InPlace: true},
	}
	fmt.Println(nn.Summary(net))
	for _, p := range nn.Parameters(net) {
		fmt.Println(p.Name, nn.Shape(p.Tensor))
	}
	// Output:
	// Sequential(
	//   (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
	//   (1): BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
	//   (2): ReLU(inplace)
	// )
	// 0.weight [4 1 3 3]
	// 1.weight [4]
	// 1.bias [4]
}

// Try returns libtorch's refusal of a call as an error.
func ExampleTry() {
	err := nn.Try(func() {
		nn.MatMul(nn.Zeros(nn.CPU, nn.Float, 2, 3), nn.Zeros(nn.CPU, nn.Float, 2, 3))
	})
	var refused *nn.Error
	fmt.Println(errors.As(err, &refused), refused.Op)
	// Output:
	// true matmul
}

// The end of a scope frees the tensors that were made in it, except those that Keep
// was called with.
func ExampleScope() {
	var sum torch.Tensor
	freed := nn.Scope(func() {
		x := nn.Full(nn.CPU, nn.Float, 2, 3, 4)
		sum = nn.Sum(nn.Mul(x, x))
		nn.Keep(sum)
	})
	v, err := nn.Item(sum)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(freed, "freed; the sum is", v)
	// Output:
	// 2 freed; the sum is 48
}

// A batch of one image is mirrored left to right.
func ExampleWarp() {
	nn.Scope(func() {
		image, err := nn.FromSlice(nn.CPU, []float32{0, .25, .5, .75, 1, .5}, 1, 1, 2, 3)
		if err != nil {
			log.Fatal(err)
		}
		mirror := nn.WarpParams{Sampling: [9]float64{-1, 0, 0, 0, 1, 0, 0, 0, 1}}
		warp := nn.NewWarp(nn.CPU, []nn.WarpParams{mirror}, 2, 3)
		out, err := nn.Slice[float32](warp.Images(image))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(out)
	})
	// Output:
	// [0.5 0.25 0 0.5 1 0.75]
}
