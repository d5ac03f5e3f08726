package train_test

import (
	"context"
	"fmt"
	"log"

	"github.com/hcunet/hcunet/augment"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/folds"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/train"
	"github.com/hcunet/hcunet/unet"
)

// Films that examples/prepare made, the first of four folds held out.
func Example_films() {
	check := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	ctx := context.Background()
	ds, err := data.Open("siim-256", nil)
	check(err)
	images, err := feed.Read(ctx, feed.Samples(ds.Train, ds.Task), nil)
	check(err)
	folds, err := folds.KFold(images.Len(), 4, folds.KernelSeed)
	check(err)
	films, err := feed.NewLoader(images.Subset(folds.Train(0)), feed.LoaderOptions{Batch: 16, Shuffle: true, Augment: &augment.Config{}})
	check(err)
	held, err := feed.NewLoader(images.Subset(folds[0]), feed.LoaderOptions{Batch: 16})
	check(err)

	in := nn.NewInit(nn.CPU, 2019) // where weights live, and the seed they are drawn from
	net := unet.New(in, resnet.New34(in, 3), 2, unet.Config{})
	cfg := train.Default()
	cfg.MicroBatches = 4 // batches of 16 films make a step
	learner, err := train.New(net, ds.Task, cfg, &train.Parts{
		Input:   train.Input{Mean: []float64{0.540, 0.540, 0.540}, Std: []float64{0.264, 0.264, 0.264}},
		Metrics: []metric.Metric{metric.KernelDice(metric.KernelThreshold, metric.Noise{})},
	})
	check(err)
	_, err = learner.Fit(ctx, films, held, train.Phase{Epochs: 10, Rates: train.SameRates(1e-3, 3)})
	check(err)

	sweep := metric.NewSweep(nil, metric.Noise{MinSum: metric.NoiseArea(256, 256)})
	check(learner.Predict(ctx, held, train.FlipAverage, func(p *train.Prediction) error {
		sweep.Add(p.Class(1), p.Target, 1)
		return nil
	}))
	threshold, dice := sweep.Best()
	fmt.Printf("threshold %.2f: %v\n", threshold, dice)
}
