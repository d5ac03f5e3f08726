package onnxfile

import "strconv"

// resnet adds the nodes of resnet.Encoder. The number of basic blocks of each stage is that
// of the weights.
func resnet(g *Graph, w *Weights, x Value) (features []Value) {
	conv := func(w *Weights, name, norm string) *Kernel {
		k := w.Part(name).Conv(0)
		return k.Folded(w.Part(norm).BatchNorm(k.Out))
	}
	x = g.ReLU(g.Conv(x, conv(w, "0", "1"), 2, 3))
	features = append(features, x)
	x = g.MaxPool(x, 3, 2, 1)
	for stage := range 4 {
		part := w.Part(strconv.Itoa(4 + stage))
		for i := 0; i == 0 || part.Has(strconv.Itoa(i)+".conv1.weight"); i++ {
			block := part.Part(strconv.Itoa(i))
			stride := 1
			if stage > 0 && i == 0 {
				stride = 2
			}
			y := g.ReLU(g.Conv(x, conv(block, "conv1", "bn1"), stride, 1))
			y = g.Conv(y, conv(block, "conv2", "bn2"), 1, 1)
			if block.Has("downsample.0.weight") {
				x = g.Conv(x, conv(block, "downsample.0", "downsample.1"), stride, 0)
			}
			x = g.ReLU(g.Add(y, x))
		}
		features = append(features, x)
	}
	return features
}
