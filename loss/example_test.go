package loss_test

import (
	"encoding/json"
	"fmt"
	"log"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	torch "github.com/wangkuiyi/gotorch"
)

// A configuration is read from JSON and made into the loss of a network that tells
// two classes apart.
func Example() {
	var config loss.Config
	err := json.Unmarshal([]byte(`[
		{"name": "cross_entropy", "weight": 0.5, "parameters": {"class_weights": [1, 3]}},
		{"name": "dice", "parameters": {"smooth": 1}}
	]`), &config)
	if err != nil {
		log.Fatal(err)
	}
	l, err := config.New(data.Softmax, 2)
	if err != nil {
		log.Fatal(err)
	}
	nn.Scope(func() {
		scores := nn.Zeros(nn.CPU, nn.Float, 1, 2, 1, 2) // both classes alike
		targets, err := nn.FromSlice(nn.CPU, []uint8{0, 1}, 1, 1, 2)
		if err != nil {
			log.Fatal(err)
		}
		// 0.5 ln 2 + 1 - (0.5+1)/(1+1)
		v, err := nn.Item(l.Forward(scores, targets))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%v is %.4f\n", l, v)
		fmt.Println(nn.Try(func() { l.Forward(scores, nn.Zeros(nn.CPU, nn.Byte, 1, 2, 2)) }))
	})
	// Output:
	// 0.5*cross_entropy + dice is 0.5966
	// loss: scores (1, 2, 1, 2) for targets (1, 2, 2), wanted (N, 2, H, W) for (N, H, W): softmax over 2 classes
}

// Losses made in Go, one of them a user's own, in a sum.
func ExampleSum() {
	dice := loss.DefaultDice()
	dice.IgnoreIndex = new(255)
	bound := loss.Func{Name: "bound", F: func(scores, _ torch.Tensor) torch.Tensor {
		return nn.Mean(nn.Mul(scores, scores))
	}}
	sum := loss.Sum{
		{Weight: 1, Loss: loss.Must(dice.New(data.Sigmoid, 2))},
		{Weight: 0.01, Loss: bound},
	}
	fmt.Println(sum)
	// Output:
	// dice + 0.01*bound
}

// For a wrong configuration, the error says what is allowed.
func ExampleConfig() {
	var config loss.Config
	fmt.Println(json.Unmarshal([]byte(`[{"name": "focal", "parameters": {"gama": 1}}]`), &config))
	for _, config := range []loss.Config{
		{{Weight: 1, Parameters: loss.BCE{}}},
		{{Weight: 1, Parameters: loss.DefaultTversky()}, {Weight: 2, Parameters: loss.DefaultJaccard()}},
		{{Weight: 1, Parameters: loss.DefaultFocal()}, {Weight: 1, Parameters: loss.Lovasz{PerImage: true}}},
		loss.DefaultConfig(data.Softmax),
	} {
		l, err := config.New(data.Softmax, 3)
		fmt.Println(l, err)
	}
	// Output:
	// loss: parameters of focal: unknown field "gama", wanted gamma, alpha, normalized, reduced_threshold, one_vs_rest, class_weights, ignore_index
	// <nil> loss: bce: needs a sigmoid for each class; with softmax over the classes, use cross_entropy
	// tversky + 2*jaccard <nil>
	// focal + lovasz <nil>
	// cross_entropy <nil>
}
