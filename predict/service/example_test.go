package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"log"
	"net"
	"net/http"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/service"
)

// A program with a service opens a model, answers requests until its context is done, and
// closes the model. A real program would get the context from signal.NotifyContext.
func Example() {
	p, err := predict.New(model(), bright{}, &predict.Options{MaxPixels: 32e6})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	s, err := service.New(p, &service.Options{Queue: 32})
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, l) }()

	// A client sends a film.
	var film bytes.Buffer
	if err := png.Encode(&film, image.NewGray(image.Rect(0, 0, 96, 80))); err != nil {
		log.Fatal(err)
	}
	reply, err := http.Post("http://"+l.Addr().String()+"/predict", "image/png", &film)
	if err != nil {
		log.Fatal(err)
	}
	defer reply.Body.Close()
	var found struct {
		Width, Height int
		Positive      bool
		Notices       []string
	}
	if err := json.NewDecoder(reply.Body).Decode(&found); err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.StatusCode, found.Width, found.Height, found.Positive, found.Notices)

	stop()
	fmt.Println(<-ended)
	// Output:
	// 200 96 80 false [research use, not for diagnosis]
	// <nil>
}

// model takes the place of predict.ReadArtifact("model.safetensors").
func model() *predict.Artifact {
	task := data.Binary("lung")
	task.Output = data.Sigmoid
	p := data.DefaultPreparation()
	p.Size, p.CLAHE = 16, false
	return &predict.Artifact{Model: predict.Model{
		Task: task, Preparation: p, Network: []byte(`{}`), Folds: 1,
		Point: predict.OperatingPoint{Rules: []metric.Rule{metric.ThresholdRule(0.5, 0)}},
	}}
}

// bright takes the place of libtorch.Backend. It calls bright pixels lung.
type bright struct{}

func (bright) Open(*predict.Artifact) (predict.Engine, error)           { return bright{}, nil }
func (bright) Probabilities(images []float32, n int) ([]float32, error) { return images, nil }
func (bright) Close() error                                             { return nil }
