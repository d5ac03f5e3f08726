package unet_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// options are the configurations of golden/b1_forward, by file name. All of them have
// BlurAll, because fastai 1.0.54 always blurs, whatever its options say.
var options = map[string]unet.Config{
	"default":                     {},
	"blur":                        {},
	"blur_nofinal":                {},
	"self_attention":              {SelfAttention: true},
	"last_cross_false":            {NoLastCross: true},
	"bottle":                      {Bottle: true},
	"y_range":                     {YRange: &[2]float64{0, 1}},
	"no_hypercolumns":             {NoHypercolumns: true},
	"norm_batch":                  {Norm: nn.NormBatch},
	"norm_batchzero":              {Norm: nn.NormBatchZero},
	"norm_weight":                 {Norm: nn.NormWeight},
	"norm_spectral":               {Norm: nn.NormSpectral},
	"norm_none":                   {Norm: nn.NormNone},
	"nohc_batch_sa_bottle_noblur": {NoHypercolumns: true, Norm: nn.NormBatch, SelfAttention: true, Bottle: true},
}

// optionNames returns the sorted keys of options, or in a short run three that together
// use every part of the network.
func optionNames() []string {
	if !golden.Long() {
		return []string{"default", "nohc_batch_sa_bottle_noblur", "norm_weight"}
	}
	return slices.Sorted(maps.Keys(options))
}

// kernelNet returns the notebook's network, on a ResNet-34, without initial weights;
// formula sets them.
func kernelNet(cfg unet.Config, dtype nn.DType) *unet.Net {
	in := &nn.Init{Device: testdevice.Device, DType: dtype, Blank: true}
	return unet.New(in, resnet.New34(in, 3), 2, cfg)
}

// newKernelNet returns the notebook's network with the random weights with which
// training starts.
func newKernelNet() *unet.Net {
	in := nn.NewInit(testdevice.Device, 1)
	return unet.New(in, resnet.New34(in, 3), 2, unet.Config{})
}

// shapesOfKernelNet returns the notebook's network on the meta device: shapes without
// values.
func shapesOfKernelNet(cfg unet.Config) *unet.Net {
	in := nn.NewInit(nn.Meta, 1)
	return unet.New(in, resnet.New34(in, 3), 2, cfg)
}

type netKey struct {
	name  string
	dtype nn.DType
}

var formulaNets = map[netKey]*unet.Net{}

// formulaNet returns the notebook's network with one of the options and formula
// weights, for tests that do not change it. A short test run shares the networks.
func formulaNet(t testing.TB, name string, dtype nn.DType, shipped map[string]checkpoint.Tensor) *unet.Net {
	key := netKey{name, dtype}
	if net := formulaNets[key]; net != nil {
		return net
	}
	net := kernelNet(options[name], dtype)
	formula(t, net, shipped)
	if !golden.Long() {
		formulaNets[key] = net
	}
	return net
}

// fills caches the formula weights of large tensors, which most networks share.
var fills = map[string][]float32{}

func fill(name string, n int, center, scale float64) []float32 {
	if n < 100_000 {
		return golden.Fill(name, n, center, scale)
	}
	key := fmt.Sprint(name, n, center, scale)
	if fills[key] == nil {
		fills[key] = golden.Fill(name, n, center, scale)
	}
	return fills[key]
}

// formula overwrites net's state with the reference's formula weights. shipped holds
// the tensors for which there is no formula.
func formula(t testing.TB, net nn.Module, shipped map[string]checkpoint.Tensor) {
	t.Helper()
	state := nn.State(net)
	batchNorm := map[string]bool{}
	for _, n := range state {
		if owner, ok := strings.CutSuffix(n.Name, ".running_mean"); ok {
			batchNorm[owner] = true
		}
	}
	nn.Scope(func() {
		for _, n := range state {
			shape, size := []int{}, 1
			for _, d := range nn.Shape(n.Tensor) {
				shape = append(shape, int(d))
				size *= int(d)
			}
			center, scale := golden.Rule(n.Name, shape, batchNorm[n.Name[:strings.LastIndexByte(n.Name, '.')]])
			values := fill(n.Name, size, center, scale)
			if s, ok := shipped["shipped."+n.Name]; ok {
				v, err := s.Float64s()
				require.NoError(t, err)
				values = make([]float32, size)
				for i := range v {
					values[i] = float32(v[i])
				}
			}
			nn.CopyInto(n.Tensor, tensor(t, nn.Float, values, nn.Shape(n.Tensor)...))
		}
	})
}

func tensor(t testing.TB, dtype nn.DType, values []float32, shape ...int64) torch.Tensor {
	t.Helper()
	x, err := nn.FromSlice(testdevice.Device, values, shape...)
	require.NoError(t, err)
	return nn.To(x, testdevice.Device, dtype)
}

// image returns the reference's input of that name, with values in [-2, 2].
func image(t testing.TB, dtype nn.DType, name string, shape ...int64) torch.Tensor {
	t.Helper()
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return tensor(t, dtype, golden.Fill(name, int(n), 0, 2), shape...)
}

func values(t testing.TB, x torch.Tensor) []float64 {
	t.Helper()
	v, err := nn.Slice[float64](x)
	require.NoError(t, err)
	return v
}

// scoped runs f in a scope and fails the test on an error of libtorch.
func scoped(t testing.TB, f func()) {
	t.Helper()
	require.NoError(t, nn.Try(func() { nn.Scope(f) }))
}

// forward runs net in evaluation mode on the golden input of that name.
func forward(t testing.TB, net *unet.Net, dtype nn.DType, name string, shape ...int64) (out []float64) {
	t.Helper()
	scoped(t, func() {
		x := image(t, dtype, name, shape...)
		nn.NoGrad(func() { out = values(t, net.Forward(nn.Eval, x)) })
	})
	return out
}

// readJSON decodes the file at path into v.
func readJSON(t testing.TB, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, v))
}
