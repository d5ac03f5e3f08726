package libtorch_test

import (
	"context"
	"fmt"
	"image"
	"image/png"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/libtorch"
	"github.com/hcunet/hcunet/unet"
)

// A service opens a model once. Its handlers use it from any number of goroutines, each
// with the context of its request.
func Example() {
	model, film, remove := modelAndFilm()
	defer remove()
	p, err := predict.Open(model, libtorch.Backend{Threads: 1}, &predict.Options{Queue: 16})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()

	var handlers sync.WaitGroup
	results := make([]*predict.Result, 3)
	for i := range results {
		handlers.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			r, err := p.File(ctx, film)
			if err != nil {
				log.Fatal(err)
			}
			results[i] = r
		})
	}
	handlers.Wait()

	r := results[0]
	for _, f := range r.Findings {
		fmt.Printf("%s: %t, in a mask of %v\n", f.Class, f.Positive, f.Mask.Rect.Size())
	}
	fmt.Println(r.Notices[0])
	// Output:
	// lung: false, in a mask of (96,80)
	// research use, not for diagnosis
}

// modelAndFilm writes a model with random weights, and a black image.
func modelAndFilm() (model, film string, remove func()) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	net, err := unet.Build(nn.NewInit(nn.CPU, 1), 1, 2, unet.Config{Encoder: "few"})
	if err != nil {
		log.Fatal(err)
	}
	p := data.DefaultPreparation()
	p.Size = 32
	a, err := libtorch.NewArtifact(predict.Model{
		Task: data.Binary("lung"), Preparation: p,
		Point: predict.OperatingPoint{Rules: []metric.Rule{metric.ThresholdRule(1, 0)}},
	}, net)
	if err != nil {
		log.Fatal(err)
	}
	model, film = filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "film.png")
	if err := predict.WriteArtifact(model, a); err != nil {
		log.Fatal(err)
	}
	f, err := os.Create(film)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, image.NewGray(image.Rect(0, 0, 96, 80))); err != nil {
		log.Fatal(err)
	}
	return model, film, func() { os.RemoveAll(dir) }
}
