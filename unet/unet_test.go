package unet_test

import (
	"os"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
	torch "github.com/wangkuiyi/gotorch"
)

// kernelNet returns the notebook's network.
func kernelNet(cfg unet.Config) *unet.Net {
	in := nn.NewInit(nn.CPU, 1)
	return unet.New(in, resnet.New34(in, 3), cfg)
}

func TestStateDict(t *testing.T) {
	var want [][]any // name, shape, type
	golden.JSON(t, "state_dict_keys.json", &want)
	state := nn.State(kernelNet(unet.Config{}))
	require.Len(t, state, len(want))
	parameters, tensors := int64(0), 0
	for i, n := range state {
		require.Equal(t, want[i][0], n.Name)
		size := int64(1)
		for j, d := range want[i][1].([]any) {
			require.EqualValues(t, d, nn.Shape(n.Tensor)[j], n.Name)
			size *= int64(d.(float64))
		}
		require.Equal(t, want[i][2], nn.DTypeOf(n.Tensor).String(), n.Name)
		if !n.Buffer {
			parameters += size
			tensors++
		}
	}
	require.EqualValues(t, 43_232_353, parameters)
	require.Equal(t, 174, tensors)
}

func TestSummary(t *testing.T) {
	want, err := os.ReadFile(golden.Path(t, "golden/model_print.txt"))
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(string(want)), nn.Summary(kernelNet(unet.Config{})))
}

// forward runs net in evaluation mode on the golden input of that name.
func forward(t *testing.T, net *unet.Net, name string, shape ...int64) []float64 {
	t.Helper()
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	var out []float64
	err := nn.Try(func() {
		nn.Scope(func(func(...torch.Tensor)) {
			x, err := nn.FromSlice(nn.CPU, golden.Fill(name, int(n), 0, 2), shape...)
			require.NoError(t, err)
			nn.Eval(net, func() { out, err = nn.Slice[float64](net.Forward(x)) })
			require.NoError(t, err)
		})
	})
	require.NoError(t, err)
	return out
}

// options are the choices of golden/b1_forward, by file name.
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

// Worst error of the largest logit allowed. PyTorch's own float32 run is up to
// 4e-7 away from its float64 run; the order of sums differs here.
const tolerance = 1e-5

func TestForward(t *testing.T) {
	for name, cfg := range options {
		t.Run(name, func(t *testing.T) {
			want := golden.Tensors(t, "b1_forward/"+name+".safetensors")
			net := kernelNet(cfg)
			f, err := nn.SaveState(net)
			require.NoError(t, err)
			golden.Weights(f, "", want)
			require.NoError(t, nn.LoadState(net, f))
			worst := golden.Close(t, "64", forward(t, net, "input.64", 2, 3, 64, 64), golden.Float64s(t, want, "logits.64.f64"), tolerance)
			worst = max(worst, golden.Close(t, "128", forward(t, net, "input.128", 1, 3, 128, 128), golden.Float64s(t, want, "logits.128.f64"), tolerance))
			own := golden.Close(t, "torch", golden.Float64s(t, want, "logits.64.f32"), golden.Float64s(t, want, "logits.64.f64"), tolerance)
			t.Logf("worst error %.2g of the largest logit; torch's own float32 %.2g", worst, own)
		})
	}
}
