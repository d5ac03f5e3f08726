package onnxfile

import (
	"strconv"

	"github.com/hcunet/hcunet/network"
)

// A unet adds the nodes of the network of package unet, stage by stage. It finds the
// weights under the names that they have there.
type unet struct {
	g   *Graph
	cfg network.Config
	w   *Weights // the weights under "layers"
	at  int      // number of the next stage
}

// stage returns the weights of the next stage.
func (u *unet) stage() *Weights {
	w := u.w.Part(strconv.Itoa(u.at))
	u.at++
	return w
}

// scores adds the nodes of the network for images (N, C, H, W) and returns the scores
// (N, classes, H, W).
func (u *unet) scores(encode Encoder, image Value) Value {
	g := u.g
	skips := encode(g, u.stage(), image) // (N, Ci, H/2^i, W/2^i), i from 1 on
	if len(skips) < 2 {
		failf("encoder %s gave %d maps; wanted two or more", u.cfg.Encoder, len(skips))
	}
	x := skips[len(skips)-1]
	skips = skips[:len(skips)-1]

	norm := u.stage()
	_, shape := norm.Tensor("weight")
	x = g.ReLU(g.Scale(x, norm.BatchNorm(shape[0])))
	u.stage() // the ReLU
	middle := u.stage()
	x = u.convLayer(u.convLayer(x, middle.Part("0")), middle.Part("1"))

	maps := []Value{x}
	for i := range skips {
		final := i == len(skips)-1
		x = u.block(x, skips[len(skips)-1-i], u.stage(), !final && u.cfg.Blur.Inner() || u.cfg.Blur.Final(), u.cfg.SelfAttention && i == len(skips)-3)
		maps = append(maps, x)
	}
	x = u.up(x, u.stage(), u.cfg.Blur.Final())
	if !u.cfg.NoLastCross {
		u.stage() // the concatenation with the image
		// A processor computes 8 or 16 channels at a time. The 96 channels and the image's
		// 3 are padded with zeros to 104: then the two convolutions here, which are a third
		// of the network, were a sixth faster in ONNX Runtime and OpenVINO.
		joined := g.channels[x] + g.channels[image]
		x = g.Cat(1, x, g.Widen(image, g.channels[image]+wide(joined)-joined))
		x = u.resBlock(x, u.stage().Part("layers"))
	}
	if u.cfg.NoHypercolumns {
		x = u.head(x, u.stage())
	} else {
		columns := u.stage().Part("factorization")
		x = u.columns(x, maps, columns, u.stage())
	}
	if r := u.cfg.YRange; r != nil {
		x = g.Times(g.Sigmoid(x), r[1]-r[0])
		x = g.Node("Add", []Value{x, g.Floats([]float32{float32(r[0])})})
	}
	return x
}

// wide returns channels rounded up to a multiple of 8.
func wide(channels int) int { return (channels + 7) / 8 * 8 }

// convLayer adds an nn.ConvLayer: convolution, ReLU, batch norm. For a layer with
// self-attention, the caller adds it.
func (u *unet) convLayer(x Value, w *Weights) Value {
	k := w.Part("0").Conv(u.cfg.Norm)
	return u.normalized(u.g.ReLU(u.g.Conv(x, k, 1, k.Height/2)), w, k.Out)
}

// normalized adds the batch norm of a layer with the given number of channels, if it has
// one. Channels of zeros that x has beyond them stay zero.
func (u *unet) normalized(x Value, w *Weights, channels int) Value {
	if !u.batchNorm() {
		return x
	}
	a := w.Part("2").BatchNorm(channels)
	more := make([]float32, u.g.channels[x]-channels)
	return u.g.Scale(x, &Affine{append(a.Scale, more...), append(a.Shift, more...)})
}

func (u *unet) batchNorm() bool {
	return u.cfg.Norm == network.NormBatch || u.cfg.Norm == network.NormBatchZero
}

// linear returns the kernel of a convolution layer without ReLU, with its batch norm
// folded in.
func (u *unet) linear(w *Weights) *Kernel {
	k := w.Part("0").Conv(u.cfg.Norm)
	if u.batchNorm() {
		k = k.Folded(w.Part("1").BatchNorm(k.Out))
	}
	return k
}

// up adds an nn.PixelShuffleICNR.
func (u *unet) up(x Value, w *Weights, blur bool) Value {
	x = u.g.PixelShuffle(u.g.ReLU(u.g.Conv(x, u.linear(w.Part("conv")), 1, 0)))
	if blur {
		x = u.g.Blur(x)
	}
	return x
}

// block adds one decoder block, which doubles the resolution. The upsampled maps are never
// negative, so only the skip needs the ReLU that fastai applies after the concatenation.
func (u *unet) block(x, skip Value, w *Weights, blur, attention bool) Value {
	g := u.g
	x = u.up(x, w.Part("shuf"), blur) // (N, upC/2, 2h, 2w)
	if u.cfg.NoHypercolumns {
		x = g.Fit(x, skip)
	}
	norm := w.Part("bn")
	_, shape := norm.Tensor("weight")
	x = g.Cat(1, x, g.ReLU(g.Scale(skip, norm.BatchNorm(shape[0]))))
	x = u.convLayer(u.convLayer(x, w.Part("conv1")), w.Part("conv2"))
	if attention {
		at := 2
		if u.batchNorm() {
			at = 3
		}
		x = u.attention(x, w.Part("conv2").Part(strconv.Itoa(at)))
	}
	return x
}

// attention adds an nn.SelfAttention: gamma * value·softmax(queryᵀ·key) + x.
func (u *unet) attention(x Value, w *Weights) Value {
	g := u.g
	flat := g.reshape(x, 0, 0, -1) // (N, C, HW)
	project := func(name string) Value {
		v, shape := w.Part(name).spectralNorm()
		y := g.Node("MatMul", []Value{g.Floats(v, 1, shape[0], len(v)/shape[0]), flat})
		g.channels[y] = shape[0]
		return y
	}
	query, key, value := project("query"), project("key"), project("value")
	query = g.Node("Transpose", []Value{query}, Attr{"perm", []int{0, 2, 1}})
	weights := g.Softmax(g.Node("MatMul", []Value{query, key}), 1) // (N, HW, HW)
	gamma, _ := w.Tensor("gamma", 1)
	o := g.Times(g.Node("MatMul", []Value{value, weights}), float64(gamma[0]))
	shape := g.Node("Shape", []Value{x})
	return g.Node("Reshape", []Value{g.Add(o, flat), shape})
}

// resBlock adds an nn.ResBlock for a map that was widened by channels of zeros. They are
// zeros in the result as well.
func (u *unet) resBlock(x Value, w *Weights) Value {
	y := x
	for _, name := range []string{"0", "1"} {
		layer := w.Part(name)
		k := layer.Part("0").Conv(u.cfg.Norm)
		y = u.g.ReLU(u.g.Conv(y, k.padded(wide(k.Out), u.g.channels[y]), 1, k.Height/2))
		y = u.normalized(y, layer, k.Out)
	}
	return u.g.Add(x, y)
}

// head adds the 1x1 convolution that computes the scores.
func (u *unet) head(x Value, w *Weights) Value {
	k := u.linear(w)
	return u.g.Conv(x, k.padded(k.Out, u.g.channels[x]), 1, 0)
}

// columns adds the hypercolumn head with the 1x1 convolution W that follows it. As package
// hypercolumn explains, in
//
//	W * cat(up(K2 * (K1 * h) + b2), ..., x)
//
// W commutes with resizing and distributes over the concatenation. V = W K2 has only one
// output for each class, and can be split into its nine taps:
//
//	V * (K1 * h) = sum over the taps t of shift_t(V_t K1 * h)
//
// The products V_t K1 form one convolution with 9 outputs for each class, 18 for two
// classes instead of the 99 of K1. The shifts and the sum form a second convolution, whose
// weights are zeros and ones.
func (u *unet) columns(x Value, maps []Value, w, head *Weights) Value {
	g := u.g
	last := u.linear(head)
	width := last.In / (len(maps) + 1)
	if width*(len(maps)+1) != last.In || last.Height != 1 || last.Width != 1 {
		failf("the last convolution has %dx%d pixels and %d channels; wanted 1x1 and the same number for each of %d maps", last.Height, last.Width, last.In, len(maps)+1)
	}
	bias := make([]float64, last.Out)
	for o := range bias {
		if last.Bias != nil {
			bias[o] = float64(last.Bias[o])
		}
	}
	var parts []Value
	for i, h := range maps {
		factors := w.Part(strconv.Itoa(i))
		k1, k2 := factors.Part("0").Conv(0), factors.Part("1").Conv(0)
		for _, k := range []*Kernel{k1, k2} {
			if k.Out != width || k.Height != 3 || k.Width != 3 || k.Bias == nil {
				failf("factor %d of the hypercolumns gives %d channels by %dx%d pixels; wanted %d by 3x3, and a bias", i, k.Out, k.Height, k.Width, width)
			}
		}
		if k2.In != width {
			failf("factor %d of the hypercolumns takes %d channels; wanted %d", i, k2.In, width)
		}
		taps := fold(last, i*width, k1, k2, bias)
		s := g.Conv(g.Conv(h, taps, 1, 1), shifts(last.Out), 1, 1) // (N, classes, h, w)
		parts = append(parts, g.Grow(s, 1<<(len(maps)-i)))
	}
	rest := &Kernel{Out: last.Out, In: width, Height: 1, Width: 1, Weight: make([]float32, last.Out*width), Bias: make([]float32, last.Out)}
	for o := range last.Out {
		copy(rest.Weight[o*width:], last.Weight[o*last.In+len(maps)*width:][:width])
		rest.Bias[o] = float32(bias[o])
	}
	x = g.Conv(x, rest.padded(rest.Out, g.channels[x]), 1, 0)
	for _, p := range parts {
		x = g.Add(x, p)
	}
	return x
}

// fold returns the products of K1 and the taps of V = W K2 as one convolution. W is the
// part of last that begins at channel from. Output t*classes + o belongs to tap t and
// class o. fold adds W b2 to bias.
func fold(last *Kernel, from int, k1, k2 *Kernel, bias []float64) *Kernel {
	const area = 9
	width := k1.Out
	row := k1.In * area
	taps := &Kernel{Out: area * last.Out, In: k1.In, Height: 3, Width: 3,
		Weight: make([]float32, area*last.Out*row), Bias: make([]float32, area*last.Out)}
	v, sum := make([]float64, width), make([]float64, row)
	for o := range last.Out {
		w := last.Weight[o*last.In+from:][:width]
		bias[o] += dot(w, k2.Bias)
		for t := range area {
			clear(v)
			for m, x := range w {
				for c := range width {
					v[c] += float64(x) * float64(k2.Weight[(m*width+c)*area+t])
				}
			}
			clear(sum)
			constant := 0.0
			for c, x := range v {
				for j, y := range k1.Weight[c*row:][:row] {
					sum[j] += x * float64(y)
				}
				constant += x * float64(k1.Bias[c])
			}
			at := t*last.Out + o
			for j, y := range sum {
				taps.Weight[at*row+j] = float32(y)
			}
			taps.Bias[at] = float32(constant)
		}
	}
	return taps
}

// shifts returns the convolution that shifts the outputs of fold by the offsets of their
// taps and adds them up for each class.
func shifts(classes int) *Kernel {
	const area = 9
	k := &Kernel{Out: classes, In: area * classes, Height: 3, Width: 3, Weight: make([]float32, classes*area*classes*area)}
	for o := range classes {
		for t := range area {
			k.Weight[(o*k.In+t*classes+o)*area+t] = 1
		}
	}
	return k
}
