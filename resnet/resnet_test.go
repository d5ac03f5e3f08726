package resnet_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/internal/testdevice"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/stretchr/testify/require"
)

// torchvision is the content of testdata/features.json, which features.py writes.
type torchvision struct {
	ResNet18 [][2]any `json:"resnet18"` // names and shapes, in order
	ResNet34 [][2]any `json:"resnet34"`
	Features []struct {
		Shape       []int64
		Sum         float64
		First, Last []float64
	}
}

func reference(t *testing.T) (r torchvision) {
	t.Helper()
	b, err := os.ReadFile("testdata/features.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &r))
	return r
}

// The encoder's tensors have the names, shapes and order of torchvision's state dict.
func TestTorchvisionName(t *testing.T) {
	r := reference(t)
	in := nn.NewInit(testdevice.Device, 1)
	for _, test := range []struct {
		encoder *resnet.Encoder
		want    [][2]any
	}{{resnet.New18(in, 3), r.ResNet18}, {resnet.New34(in, 3), r.ResNet34}} {
		state := nn.State(test.encoder)
		require.Len(t, state, len(test.want))
		for i, n := range state {
			name, err := resnet.TorchvisionName(n.Name)
			require.NoError(t, err)
			require.Equal(t, test.want[i][0], name)
			shape := []int64{}
			for _, d := range test.want[i][1].([]any) {
				shape = append(shape, int64(d.(float64)))
			}
			require.Equal(t, shape, nn.Shape(n.Tensor), name)
		}
	}
	for _, name := range []string{"", "0", "conv1.weight", "2.weight", "8.0.conv1.weight", "10.weight"} {
		_, err := resnet.TorchvisionName(name)
		require.Error(t, err, name)
	}
}

// formula returns a checkpoint with torchvision's names and the values of features.py.
func formula(t *testing.T, names [][2]any) *checkpoint.File {
	t.Helper()
	f := &checkpoint.File{}
	norm := map[string]bool{}
	for _, n := range names {
		if owner, ok := strings.CutSuffix(n[0].(string), ".running_mean"); ok {
			norm[owner] = true
		}
	}
	for _, n := range names {
		name, shape, size := n[0].(string), []int{}, 1
		for _, d := range n[1].([]any) {
			shape = append(shape, int(d.(float64)))
			size *= int(d.(float64))
		}
		if strings.HasSuffix(name, ".num_batches_tracked") {
			continue
		}
		center, scale := golden.Rule(name, shape, norm[name[:strings.LastIndexByte(name, '.')]])
		f.Tensors = append(f.Tensors, checkpoint.FromFloat32(name, golden.Fill(name, size, center, scale), shape...))
	}
	return f
}

// A checkpoint with missing tensors, extra tensors or tensors of another shape is an
// error that names them. A classifier in it is ignored. Weights of another ResNet are an
// error that names that ResNet.
func TestLoadWeights(t *testing.T) {
	f := formula(t, reference(t).ResNet18)
	f.Tensors = append(f.Tensors, checkpoint.FromFloat32("fc.bias", []float32{1, 2}, 2))
	require.NoError(t, resnet.New18(nn.NewInit(testdevice.Device, 1), 3).LoadWeights(f))

	var mismatch *nn.Mismatch
	require.ErrorAs(t, resnet.New18(nn.NewInit(testdevice.Device, 1), 1).LoadWeights(f), &mismatch)
	require.Equal(t, &nn.Mismatch{Misshape: []string{"0.weight: [64 3 7 7], wanted [64 1 7 7]"}}, mismatch)

	f.Tensors = append(f.Tensors[1:], checkpoint.FromFloat32("layer5.bias", []float32{1, 2}, 2))
	require.ErrorAs(t, resnet.New18(nn.NewInit(testdevice.Device, 1), 3).LoadWeights(f), &mismatch)
	require.Equal(t, &nn.Mismatch{Missing: []string{"0.weight"}, Extra: []string{"layer5.bias"}}, mismatch)

	require.EqualError(t, resnet.New34(nn.NewInit(testdevice.Device, 1), 3).LoadWeights(formula(t, reference(t).ResNet18)),
		"resnet: these are weights of a resnet18, wanted resnet34")
	require.EqualError(t, resnet.New18(nn.NewInit(testdevice.Device, 1), 3).LoadWeights(formula(t, reference(t).ResNet34)),
		"resnet: these are weights of a resnet34, wanted resnet18")
}

// Deeper ResNets have three convolutions in a block. This distinguishes a ResNet-50 from
// a ResNet-34, which has the same numbers of blocks.
func TestArchitecture(t *testing.T) {
	file := func(conv string, blocks ...int) *checkpoint.File {
		f := &checkpoint.File{}
		for stage, n := range blocks {
			for i := range n {
				f.Tensors = append(f.Tensors, checkpoint.Tensor{Name: fmt.Sprintf("layer%d.%d.%s.weight", stage+1, i, conv)})
			}
		}
		return f
	}
	for want, f := range map[string]*checkpoint.File{
		"resnet34": file("conv2", 3, 4, 6, 3), "resnet50": file("conv3", 3, 4, 6, 3), "resnet101": file("conv3", 3, 4, 23, 3),
		"": file("conv1", 1, 1, 1, 1),
	} {
		require.Equal(t, want, resnet.Architecture(f))
	}
	f := &checkpoint.File{Tensors: []checkpoint.Tensor{{Name: "layer1.99999999.conv1.weight"}, {Name: "layer1.-1.x"}, {Name: "layer1"}, {Name: ""}}}
	require.Empty(t, resnet.Architecture(f))
}

// TestFeatures compares the feature maps of an image with torchvision's, in float64.
func TestFeatures(t *testing.T) {
	r := reference(t)
	in := nn.NewInit(testdevice.Device, 1)
	in.DType = nn.Double
	e := resnet.New18(in, 3)
	require.NoError(t, e.LoadWeights(formula(t, r.ResNet18)))
	require.EqualValues(t, 3, e.InChannels())
	nn.Scope(func() {
		x, err := nn.FromSlice(testdevice.Device, golden.Fill("image", 3*64*96, 0, 2), 1, 3, 64, 96)
		require.NoError(t, err)
		nn.NoGrad(func() {
			features := e.Features(nn.Eval, nn.To(x, testdevice.Device, nn.Double))
			require.Len(t, features, len(r.Features))
			for i, f := range features {
				want := r.Features[i]
				require.Equal(t, want.Shape, nn.Shape(f))
				require.Equal(t, e.Kind().Widths[i], want.Shape[1])
				v, err := nn.Slice[float64](f)
				require.NoError(t, err)
				sum, size := 0.0, 0.0
				for _, x := range v {
					sum += x
					size += math.Abs(x)
				}
				require.InDelta(t, want.Sum, sum, 1e-13*size) // the rounding of float64 in up to twenty layers
				for j := range 4 {
					require.InDelta(t, want.First[j], v[j], 1e-13*size/float64(len(v))*10)
					require.InDelta(t, want.Last[j], v[len(v)-4+j], 1e-13*size/float64(len(v))*10)
				}
			}
		})
	})
}

// The second layer group holds the last two stages.
func TestGroup(t *testing.T) {
	e := resnet.New18(nn.NewInit(testdevice.Device, 1), 1)
	for _, n := range nn.State(e) {
		name, err := resnet.TorchvisionName(n.Name)
		require.NoError(t, err)
		late := strings.HasPrefix(name, "layer3.") || strings.HasPrefix(name, "layer4.")
		require.Equal(t, late, e.Kind().Group(n.Name) == 1, name)
	}
}
