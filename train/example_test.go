package train_test

import (
	"context"
	"fmt"
	"log"

	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	torch "github.com/wangkuiyi/gotorch"
)

// edge is about the smallest network that can be trained: one layer sees three by
// three pixels.
type edge struct{ conv nn.Sequential }

func (m edge) Forward(mode nn.Mode, x torch.Tensor) torch.Tensor { return m.conv.Forward(mode, x) }
func (m edge) Walk(w nn.Walker)                                  { w.Child("conv", m.conv) }
func (m edge) String() string                                    { return "edge" }

// LayerGroups puts all parameters into one group, with one learning rate.
func (m edge) LayerGroups() [][]nn.Named { return [][]nn.Named{nn.Parameters(m)} }

// picture is one grey image with a bright shape, and the mask of that shape.
func picture() *feed.Batch {
	rows := []string{
		"........",
		".####...",
		".#......",
		".#...##.",
		".....##.",
		"........",
	}
	b := &feed.Batch{N: 1, C: 1, H: len(rows), W: len(rows[0])}
	for _, row := range rows {
		for _, c := range row {
			if c == '#' {
				b.Images, b.Targets = append(b.Images, 0.7), append(b.Targets, train.Foreground)
			} else {
				b.Images, b.Targets = append(b.Images, 0.4), append(b.Targets, 0)
			}
		}
	}
	return b
}

// A network learns to find what is bright in an image.
func Example() {
	in := nn.NewInit(nn.CPU, 1)
	model := edge{nn.Sequential{
		nn.NewConv2d(in, 1, 8, 3, &nn.ConvOptions{Padding: 1}), nn.Activation{},
		nn.NewConv2d(in, 8, 2, 1, nil),
	}}
	trainer, err := train.New(model, train.Options{
		Input: train.Input{Mean: []float64{0.45}, Std: []float64{0.15}},
		Clip:  1,
	})
	if err != nil {
		log.Fatal(err)
	}
	source := batches{picture()} // a feed.Source; feed.NewLoader makes one of a data set
	phase := train.Phase{Name: "all", Epochs: 60, Rates: []float64{0.05}}
	epochs, err := trainer.Fit(context.Background(), phase, source, source)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Dice %.2f\n", epochs[len(epochs)-1].Dice)

	err = trainer.Predict(context.Background(), source, false, func(p train.Prediction) error {
		for i, prob := range p.Prob {
			if prob > 0.5 {
				fmt.Print("#")
			} else {
				fmt.Print(".")
			}
			if i%8 == 7 {
				fmt.Println()
			}
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// Dice 1.00
	// ........
	// .####...
	// .#......
	// .#...##.
	// .....##.
	// ........
}

// The learning rate lies where the loss falls fastest.
func ExampleTrainer_FindRate() {
	in := nn.NewInit(nn.CPU, 1)
	model := edge{nn.Sequential{
		nn.NewConv2d(in, 1, 8, 3, &nn.ConvOptions{Padding: 1}), nn.Activation{},
		nn.NewConv2d(in, 8, 2, 1, nil),
	}}
	trainer, err := train.New(model, train.Options{})
	if err != nil {
		log.Fatal(err)
	}
	points, err := trainer.FindRate(context.Background(), batches{picture()}, nil)
	if err != nil {
		log.Fatal(err)
	}
	rate, err := train.SteepestRate(points)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the loss falls fastest at a rate of %.2f\n", rate)
	// Output:
	// the loss falls fastest at a rate of 0.63
}
