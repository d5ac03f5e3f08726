package train_test

import (
	"context"
	"fmt"
	"log"
	"math"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	torch "github.com/wangkuiyi/gotorch"
)

// picture returns a batch of one grey image with a bright shape, and the mask of the shape.
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
				b.Images, b.Targets = append(b.Images, 0.7), append(b.Targets, 1)
			} else {
				b.Images, b.Targets = append(b.Images, 0.4), append(b.Targets, 0)
			}
		}
	}
	return b
}

// edge returns a very small network, with one 3x3 and one 1x1 convolution. It has one layer
// group, and so one learning rate.
func edge() nn.Sequential {
	in := nn.NewInit(nn.CPU, 1)
	return nn.Sequential{
		nn.NewConv2d(in, 1, 8, 3, &nn.ConvOptions{Padding: 1}), nn.Activation{},
		nn.NewConv2d(in, 8, 2, 1, nil),
	}
}

// A network learns to find the bright pixels of an image.
func Example() {
	learner, err := train.New(edge(), data.Binary("shape"), train.Default(), &train.Parts{
		Input: train.Input{Mean: []float64{0.45}, Std: []float64{0.15}},
	})
	if err != nil {
		log.Fatal(err)
	}
	source := batches{picture()} // a feed.Source; for a data set, use feed.NewLoader
	phase := train.Phase{Name: "all", Epochs: 60, Rates: []float64{0.05}}
	if _, err := learner.Fit(context.Background(), source, nil, phase); err != nil {
		log.Fatal(err)
	}
	err = learner.Predict(context.Background(), source, train.FlipAverage, func(p *train.Prediction) error {
		for i, prob := range p.Class(1) {
			if prob > 0.5 {
				fmt.Print("#")
			} else {
				fmt.Print(".")
			}
			if i%p.Width == p.Width-1 {
				fmt.Println()
			}
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// ........
	// .####...
	// .#......
	// .#...##.
	// .....##.
	// ........
}

// ring is a user-defined network: it concatenates the output of a convolution with a coarse
// version of it, which has the maximum of each 2x2 pixels.
type ring struct{ first, last *nn.Conv2d }

func (m ring) Forward(mode nn.Mode, x torch.Tensor) torch.Tensor {
	x = nn.ReLU(m.first.Forward(mode, x))
	size := nn.Shape(x)
	around := nn.ResizeBilinear(nn.MaxPool2d{Kernel: 2, Stride: 2}.Forward(mode, x), size[2], size[3])
	return m.last.Forward(mode, nn.Cat(x, around))
}

func (m ring) Walk(w nn.Walker) {
	w.Child("first", m.first)
	w.Child("last", m.last)
}

func (m ring) String() string { return "ring" }

// sawtooth is a user-defined schedule: ten times in a row, the rates fall to a tenth.
type sawtooth struct{}

func (sawtooth) At(i, n int, highest []float64) (rates []float64, momentum float64) {
	p := math.Mod(float64(10*i)/float64(n), 1)
	for _, r := range highest {
		rates = append(rates, r*(1-0.9*p))
	}
	return rates, 0
}

// sign is a user-defined optimizer: each weight changes by the learning rate, against the
// sign of its gradient (signSGD, Bernstein et al. 2018).
type sign struct{ groups [][]nn.Named }

var opSign, opSubtract = nn.NewOp("sign"), nn.NewOp("sub_.Tensor")

func newSign(groups [][]nn.Named) (nn.Optimizer, error) { return sign{groups}, nil }

func (s sign) Step(hyper []nn.Hyper) error {
	return nn.Try(func() {
		nn.NoGrad(func() {
			for i, group := range s.groups {
				for _, p := range group {
					if g, ok := nn.Grad(p.Tensor); ok {
						opSubtract.Call(p.Tensor, nn.MulScalar(opSign.Call(g), hyper[i].Rate))
					}
				}
			}
		})
	})
}

func (sign) State() (*checkpoint.File, error) { return &checkpoint.File{}, nil } // it has no state
func (sign) LoadState(*checkpoint.File) error { return nil }
func (sign) String() string                   { return "sign" }

// missed is a user-defined metric: the number of pixels of the shape that are not found.
type missed struct{ n int }

func (m *missed) Reset() { m.n = 0 }

func (m *missed) Add(im *metric.Image) error {
	for i, p := range im.Class(1) {
		if im.Target[i] == 1 && p < 0.5 {
			m.n++
		}
	}
	return nil
}

func (m *missed) Values() metric.Values {
	return metric.Values{{Name: "missed", Value: float64(m.n)}}
}

// A learner can use a user-defined network, loss, optimizer, schedule and metric.
func ExampleLearner() {
	in := nn.NewInit(nn.CPU, 1)
	model := ring{nn.NewConv2d(in, 1, 8, 3, &nn.ConvOptions{Padding: 1}), nn.NewConv2d(in, 16, 2, 1, nil)}
	brier := loss.Func{Name: "brier", F: func(scores, targets torch.Tensor) torch.Tensor {
		truth := nn.To(targets, nn.CPU, nn.Float)
		miss := nn.Sub(nn.Select(nn.Softmax(scores, 1), 1, 1), truth)
		return nn.Mean(nn.Mul(miss, miss))
	}}
	learner, err := train.New(model, data.Binary("shape"), train.Default(), &train.Parts{
		Loss:      brier,
		Optimizer: newSign,
		Metrics:   []metric.Metric{&missed{}},
	})
	if err != nil {
		log.Fatal(err)
	}
	source := batches{picture()}
	epochs, err := learner.Fit(context.Background(), source, source,
		train.Phase{Epochs: 100, Rates: []float64{0.02}, Schedule: sawtooth{}})
	if err != nil {
		log.Fatal(err)
	}
	first, last := epochs[0], epochs[99]
	fmt.Printf("loss %.2f, then %.2f\n", first.Value(metric.ValidLoss), last.Value(metric.ValidLoss))
	fmt.Printf("missed %v of 10 pixels, then %v\n", first.Value("missed"), last.Value("missed"))
	// Output:
	// loss 0.23, then 0.06
	// missed 10 of 10 pixels, then 0
}

// pocket is a small U-Net made of layers of package nn: it halves the image, applies a
// dilated convolution, doubles the size again and concatenates the result with the skip.
type pocket struct{ down, around, up, last nn.Layer }

func newPocket(in *nn.Init) pocket {
	return pocket{
		down: nn.Sequential{
			nn.NewConv2d(in, 1, 8, 3, &nn.ConvOptions{Padding: 1}), nn.NewGroupNorm(in, 2, 8), nn.GELU{},
		},
		around: nn.Sequential{
			nn.NewConv2d(in, 8, 16, 3, &nn.ConvOptions{Padding: 2, Dilation: 2}), nn.NewGroupNorm(in, 4, 16), nn.GELU{}, nn.NewDropout(0.1),
		},
		up:   nn.NewConvTranspose2d(in, 16, 8, 2, nil),
		last: nn.NewConv2d(in, 16, 2, 1, nil),
	}
}

func (m pocket) Forward(mode nn.Mode, x torch.Tensor) torch.Tensor {
	skip := m.down.Forward(mode, x)                            // (N,  8, H,   W)
	x = nn.MaxPool2d{Kernel: 2, Stride: 2}.Forward(mode, skip) // (N,  8, H/2, W/2)
	x = m.up.Forward(mode, m.around.Forward(mode, x))          // (N,  8, H,   W)
	return m.last.Forward(mode, nn.Cat(x, skip))               // (N,  2, H,   W)
}

func (m pocket) Walk(w nn.Walker) {
	w.Child("down", m.down)
	w.Child("around", m.around)
	w.Child("up", m.up)
	w.Child("last", m.last)
}

func (m pocket) String() string { return "pocket" }

// A small user-defined network is trained in the same way as the large one. Its loss is a
// weighted sum and its optimizer SGD. The best weights are kept, and training ends when
// they have not improved for 20 epochs.
func ExampleModel() {
	model := newPocket(nn.NewInit(nn.CPU, 1))
	cfg := train.Default()
	cfg.Loss = loss.Config{{Weight: 1, Parameters: loss.CrossEntropy{}}, {Weight: 0.5, Parameters: loss.DefaultDice()}}
	cfg.Optimizer = nn.DefaultSGD()
	best := train.KeepBest(model, train.ByLoss, 1)
	learner, err := train.New(model, data.Binary("shape"), cfg, &train.Parts{
		Input:   train.Input{Mean: []float64{0.45}, Std: []float64{0.15}},
		Metrics: []metric.Metric{metric.KernelDice(0.5, metric.Noise{})},
		Hooks:   []train.Hook{best.Hook(), (&train.EarlyStop{By: train.ByLoss, Patience: 20}).Hook()},
	})
	if err != nil {
		log.Fatal(err)
	}
	source := batches{picture()}
	epochs, err := learner.Fit(context.Background(), source, source,
		train.Phase{Epochs: 60, Rates: []float64{0.1}, Schedule: train.OneCycle{}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Dice %.1f\n", epochs[len(epochs)-1].Value("dice"))
	// Output:
	// Dice 1.0
}

// FindRate searches for learning rates at which the loss falls.
func ExampleLearner_FindRate() {
	learner, err := train.New(edge(), data.Binary("shape"), train.Default(), nil)
	if err != nil {
		log.Fatal(err)
	}
	points, err := learner.FindRate(context.Background(), batches{picture()}, nil)
	if err != nil {
		log.Fatal(err)
	}
	steepest, err := train.SteepestRate(points)
	if err != nil {
		log.Fatal(err)
	}
	valley, err := train.ValleyRate(points)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the loss falls fastest at a rate of %.1g; half way down its longest fall it is %.1g\n", steepest, valley)
	// Output:
	// the loss falls fastest at a rate of 0.3; half way down its longest fall it is 0.0007
}
