package checkpoint_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/hcunet/hcunet/checkpoint"
)

// What fastai 1's learn.save leaves: {"model": state dict, "opt": ...}. Open
// finds the model; a Subtree asks for something else.
func ExampleOpen() {
	const path = "testdata/t113_fastai_legacy.pth"
	model, err := checkpoint.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range model.Tensors {
		fmt.Println(t.Name, t.DType, t.Shape)
	}
	moments, err := checkpoint.OpenTorch(path, &checkpoint.TorchOptions{Subtree: "opt.state.1"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(moments.Tensors[1].Name, moments.Tensors[1].Shape)
	// Output:
	// 0.weight F32 [3 2 3 3]
	// 1.weight F32 [3]
	// 1.bias F32 [3]
	// 1.running_mean F32 [3]
	// 1.running_var F32 [3]
	// 1.num_batches_tracked I64 []
	// exp_avg [3]
}

// Downloads ImageNet's ResNet-34 once, and reads it from the cache afterwards.
func ExampleFetch() {
	path, err := checkpoint.Fetch(context.Background(), "resnet34", &checkpoint.FetchOptions{
		Progress: func(done, total int64) { fmt.Fprintf(os.Stderr, "\r%d of %d bytes", done, total) },
	})
	if err != nil {
		log.Fatal(err)
	}
	weights, err := checkpoint.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(weights.Tensors))
}
