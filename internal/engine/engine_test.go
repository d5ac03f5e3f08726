package engine

import (
	"flag"
	"testing"

	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/libtorch"
	"github.com/hcunet/hcunet/predict/onnx"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

func TestBackend(t *testing.T) {
	backend := func(path string, args ...string) (predict.Backend, error) {
		var f Flags
		set := flag.NewFlagSet("", flag.ContinueOnError)
		f.Add(set)
		for _, name := range Names {
			require.NotNil(t, set.Lookup(name))
		}
		require.NoError(t, set.Parse(args))
		return f.Backend(path)
	}
	for _, c := range []struct {
		path string
		args []string
		want predict.Backend
	}{
		{"model.safetensors", []string{"-device", "cpu", "-precision", "bfloat16", "-threads", "3"}, libtorch.Backend{Precision: train.BFloat16, Threads: 3}},
		{"model.safetensors", []string{"-engine", "onnx", "-threads", "3"}, onnx.Backend{Threads: 3}},
		{"model.onnx", []string{"-provider", "openvino", "-precision", "bfloat16"}, onnx.Backend{Provider: onnx.OpenVINO, BFloat16: true, File: "model.onnx"}},
	} {
		got, err := backend(c.path, c.args...)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
	for want, args := range map[string][]string{
		`engine "tensorflow"; wanted`:                      {"-engine", "tensorflow"},
		"takes -provider cuda":                             {"-engine", "onnx", "-device", "cuda"},
		`precision "half"`:                                 {"-precision", "half"},
		`precision "float16"; wanted float32, or bfloat16`: {"-engine", "onnx", "-precision", "float16"},
	} {
		_, err := backend("model.safetensors", args...)
		require.ErrorContains(t, err, want)
	}
}

// Without flags the options stay as they are, and so the model's own settings count.
func TestApply(t *testing.T) {
	applied := func(args ...string) (opt predict.Options) {
		var f Flags
		set := flag.NewFlagSet("", flag.ContinueOnError)
		f.Add(set)
		require.NoError(t, set.Parse(args))
		f.Apply(&opt)
		return opt
	}
	require.Equal(t, predict.Options{}, applied())
	require.Equal(t, predict.Options{Flip: new(bool), Tiles: &predict.Tiles{}}, applied("-no-flip", "-tiles"))
}
