package unet_test

import (
	"fmt"
	"log"

	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
)

// The notebook's network returns the scores of two classes for each pixel.
func Example() {
	in := nn.NewInit(nn.CPU, 1)
	net := unet.New(in, resnet.New34(in, 3), 2, unet.Config{})
	if err := net.CheckSize(64, 96); err != nil {
		log.Fatal(err)
	}
	err := nn.Try(func() {
		nn.Scope(func() {
			images := nn.Zeros(nn.CPU, nn.Float, 1, 3, 64, 96)
			nn.NoGrad(func() { fmt.Println(nn.Shape(net.Forward(nn.Eval, images))) })
		})
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(nn.Parameters(net)), "parameters")
	for _, group := range net.LayerGroups() {
		fmt.Println(len(group), "from", group[0].Name)
	}
	// Output:
	// [1 2 64 96]
	// 174 parameters
	// 48 from layers.0.0.weight
	// 60 from layers.0.6.0.conv1.weight
	// 66 from layers.1.weight
}

// CheckSize refuses an image size and names the next larger size that the network takes.
func ExampleNet_CheckSize() {
	in := nn.NewInit(nn.CPU, 1)
	net := unet.New(in, resnet.New18(in, 1), 2, unet.Config{})
	fmt.Println(net.CheckSize(250, 256))
	// Output:
	// unet: images are 250x256; height and width must be multiples of 32, resize or pad them to 256x256
}
