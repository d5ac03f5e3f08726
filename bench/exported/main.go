// Command exported writes the files that exported.py compares: a model with random
// weights, as model.safetensors and as ONNX files, some images, and the probabilities
// that libtorch computes for them.
//
//	exported FOLDER [encoder [folds [size]]]
//
// For engines.py it exports the notebook's network with the given weights, with a sigmoid
// for each of its two scores:
//
//	exported -weights weights.safetensors BATCH SIZE FILE
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/network"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/libtorch"
	"github.com/hcunet/hcunet/predict/onnxfile"
	"github.com/hcunet/hcunet/unet"
)

func main() {
	if os.Args[1] == "-weights" {
		must(0, exported(os.Args[2], must(strconv.Atoi(os.Args[3])), must(strconv.Atoi(os.Args[4])), os.Args[5]))
		return
	}
	folder, encoder, folds, size := os.Args[1], "resnet34", 1, 256
	if len(os.Args) > 2 {
		encoder = os.Args[2]
	}
	if len(os.Args) > 3 {
		folds = must(strconv.Atoi(os.Args[3]))
	}
	if len(os.Args) > 4 {
		size = must(strconv.Atoi(os.Args[4]))
	}
	must(0, run(folder, encoder, folds, size))
}

func run(folder, encoder string, folds, size int) error {
	p := data.KernelPreparation()
	p.Size = size
	model := predict.Model{
		Task: data.Binary("pneumothorax"), Preparation: p,
		Inference: predict.Inference{
			Input: predict.Input{Mean: data.Values{0.54, 0.54, 0.54}, Std: data.Values{0.264, 0.264, 0.264}}, Flip: true,
		},
		Point: predict.OperatingPoint{Rules: []metric.Rule{metric.ThresholdRule(0.5, 0)}},
	}
	r := rand.New(rand.NewPCG(1, 2))
	var nets []*unet.Net
	for fold := range folds {
		net, err := unet.Build(nn.NewInit(nn.CPU, uint64(fold)), 3, 2, network.Config{Encoder: encoder})
		if err != nil {
			return err
		}
		nets = append(nets, net)
	}
	a, err := libtorch.NewArtifact(model, nets...)
	if err != nil {
		return err
	}
	for _, f := range a.Weights {
		for i, t := range f.Tensors { // running statistics other than 0 and 1, as after a training
			if filepath.Ext(t.Name) == ".running_mean" || filepath.Ext(t.Name) == ".running_var" {
				v := must(t.Float32s())
				for j := range v {
					v[j] += r.Float32() / 4
				}
				f.Tensors[i] = checkpoint.FromFloat32(t.Name, v, t.Shape...)
			}
		}
	}
	must(0, predict.WriteArtifact(filepath.Join(folder, "model.safetensors"), a))
	must(0, onnxfile.Write(filepath.Join(folder, "floats.onnx"), a, nil))
	must(0, onnxfile.Write(filepath.Join(folder, "bytes.onnx"), a, &onnxfile.Options{Bytes: true, Fixed: true}))

	const n = 2
	bytes, images := make([]byte, n*size*size), make([]float32, n*size*size)
	for i := range bytes {
		bytes[i] = byte(r.IntN(128) + i%size*127/size)
		images[i] = float32(bytes[i]) / 255
	}
	engine, err := libtorch.Backend{}.Open(a)
	if err != nil {
		return err
	}
	defer engine.Close()
	prob, err := engine.Probabilities(images, n)
	if err != nil {
		return err
	}
	floats := checkpoint.FromFloat32("", prob, n, 2, size, size)
	must(0, os.WriteFile(filepath.Join(folder, "images.bin"), bytes, 0o600))
	must(0, os.WriteFile(filepath.Join(folder, "probabilities.bin"), floats.Data, 0o600))
	shape, err := json.Marshal(map[string]int{"n": n, "size": size})
	if err != nil {
		return err
	}
	fmt.Println(string(shape))
	return nil
}

func exported(weights string, batch, size int, to string) error {
	w, err := checkpoint.OpenSafetensors(weights)
	if err != nil {
		return err
	}
	p := data.KernelPreparation()
	p.Size, p.MaskScaling, p.CLAHE = size, resize.MaskNearest, false
	a := &predict.Artifact{
		Model: predict.Model{
			Task:        data.Task{Classes: []string{"none", "first", "second"}, Channels: 3, Output: data.Sigmoid},
			Preparation: p, Network: json.RawMessage(`{"encoder": "resnet34"}`), Folds: 1,
			Point: predict.OperatingPoint{Rules: make([]metric.Rule, 2)},
		},
		Weights: []*checkpoint.File{w},
	}
	return onnxfile.Write(to, a, &onnxfile.Options{Fixed: true, Batch: batch})
}

func must[T any](v T, err ...error) T {
	for _, e := range err {
		if e != nil {
			log.Fatal(e)
		}
	}
	return v
}
