package unet_test

import (
	"encoding/json"
	"testing"

	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
)

// Each configuration of the reference is equal after it was written to JSON and read
// back.
func TestConfigJSON(t *testing.T) {
	all := []unet.Config{{Encoder: "resnet34", Blur: unet.BlurInner, DetachSkips: true}, {Blur: unet.BlurNone}}
	for _, cfg := range options {
		all = append(all, cfg)
	}
	for _, cfg := range all {
		b, err := json.Marshal(cfg)
		require.NoError(t, err)
		var back unet.Config
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, cfg, back)
	}
	b, err := json.Marshal(unet.Config{Encoder: "resnet18", Norm: nn.NormBatchZero, Blur: unet.BlurInner})
	require.NoError(t, err)
	require.JSONEq(t, `{"encoder": "resnet18", "no_hypercolumns": false, "blur": "inner", "self_attention": false,
		"no_last_cross": false, "bottle": false, "y_range": null, "norm": "batch_zero", "detach_skips": false}`, string(b))
	var cfg unet.Config
	require.ErrorContains(t, json.Unmarshal([]byte(`{"blur": "some"}`), &cfg), `blur "some"; wanted all, inner or none`)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"norm": "layer"}`), &cfg), `norm "layer"; wanted none, batch`)
}

func TestBuild(t *testing.T) {
	in := nn.NewInit(nn.CPU, 1)
	net, err := unet.Build(in, 1, 3, unet.Config{Encoder: "resnet18"})
	require.NoError(t, err)
	require.Equal(t, unet.Config{Encoder: "resnet18"}, net.Config())
	require.EqualValues(t, 1, net.Encoder().InChannels())
	parameters := nn.Parameters(net)
	require.Equal(t, []int64{3}, nn.Shape(parameters[len(parameters)-1].Tensor), "a bias for each class")
	require.Equal(t, "tiny", tinyNet(unet.Config{}, nn.Float).Config().Encoder)

	for says, f := range map[string]func() (*unet.Net, error){
		`unet: encoder: "vgg" is not known, wanted resnet18 or resnet34`: func() (*unet.Net, error) {
			return unet.Build(in, 1, 2, unet.Config{Encoder: "vgg"})
		},
		"unet: 0 channels and 2 classes": func() (*unet.Net, error) { return unet.Build(in, 0, 2, unet.Config{Encoder: "resnet18"}) },
		"network: blur 7; wanted all, inner or none": func() (*unet.Net, error) {
			return unet.Build(in, 1, 2, unet.Config{Encoder: "resnet18", Blur: 7})
		},
		"network: norm -1; wanted none, batch": func() (*unet.Net, error) {
			return unet.Build(in, 1, 2, unet.Config{Encoder: "resnet18", Norm: -1})
		},
		"network: y_range is from 1 to 1": func() (*unet.Net, error) {
			return unet.Build(in, 1, 2, unet.Config{Encoder: "resnet18", YRange: &[2]float64{1, 1}})
		},
	} {
		_, err := f()
		require.ErrorContains(t, err, says)
	}
}
