package ensemble_test

import (
	"encoding"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/loss"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
	"github.com/stretchr/testify/require"
)

// own has values of the types that have their own JSON form.
var own = map[reflect.Type]any{
	reflect.TypeFor[train.Phase]():        train.Phase{Name: "slow", Epochs: 3, Rates: []float64{1, 2, 3}, Frozen: true, Schedule: train.Cosine{}},
	reflect.TypeFor[loss.Term]():          loss.Term{Weight: 0.5, Parameters: loss.DefaultTversky()},
	reflect.TypeFor[nn.OptimizerConfig](): nn.OptimizerConfig{Kind: nn.SGD, Nesterov: true, Dampening: 0, Decay: nn.DecayL2, DecayFrozenBias: true},
}

// fill gives every field a value that is not its zero.
func fill(t *testing.T, v reflect.Value) {
	if x, ok := own[v.Type()]; ok {
		v.Set(reflect.ValueOf(x))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			require.NotEmpty(t, v.Type().Field(i).Tag.Get("json"), "%v.%s has no name in JSON", v.Type(), v.Type().Field(i).Name)
			fill(t, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(7)
		if _, ok := v.Interface().(encoding.TextMarshaler); ok {
			v.SetInt(1)
		}
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(0.1)
	case reflect.String:
		v.SetString("some")
	default:
		t.Fatalf("a field of type %v", v.Type())
	}
}

// A description is equal after it was written to JSON and read back, in every field.
func TestConfigRoundTrip(t *testing.T) {
	var c ensemble.Config
	fill(t, reflect.ValueOf(&c).Elem())
	c.Version = ensemble.Version
	b, err := c.JSON()
	require.NoError(t, err)
	back, err := ensemble.ReadConfig(b)
	require.NoError(t, err)
	require.Equal(t, c, back)
	require.Empty(t, c.Differences(back))
	for _, recipe := range ensemble.Recipes {
		c := recipe(128, 8, 2)
		b, err := c.JSON()
		require.NoError(t, err)
		back, err := ensemble.ReadConfig(b)
		require.NoError(t, err)
		require.Equal(t, c, back)
	}
}

// A missing field has its default value; a zero in the JSON means zero.
func TestConfigDefaults(t *testing.T) {
	c, err := ensemble.ReadConfig([]byte(`{"version": 1}`))
	require.NoError(t, err)
	require.Equal(t, ensemble.Default(256, 16, 4), c)
	c, err = ensemble.ReadConfig([]byte(`{"version": 1, "training": {"weight_decay": 0}, "validation": {"threshold": 0}, "inference": {"min_sum": 0}}`))
	require.NoError(t, err)
	require.Equal(t, []float64{0, 0, 0}, []float64{c.Training.WeightDecay, c.Validation.Threshold, c.Inference.MinSum})
	require.Equal(t, 1.0, c.Training.Clip, "what stands beside it stays")
	c.Data = "x"
	require.NoError(t, c.Check())
}

func TestConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"version": 1, "training": {"clpi": 1}}`:                 `unknown field "training.clpi"; did you mean "clip"?`,
		`{"version": 1, "sead": 1}`:                               `unknown field "sead"; did you mean "seed"?`,
		`{"version": 1, "training": {"accumulation": "sum"}}`:     `accumulation "sum"; wanted mean or notebook`,
		`{"version": 1, "folds": {"split": "by_area"}}`:           `split "by_area"; wanted random, area or patient`,
		`{"version": 1, "phases": [{"name": "a", "epoch": 3}]}`:   `epoch`,
		`{"version": 1, "training": {"optimizer": {"beta3": 1}}}`: `beta3`,
		`{"version": 1, "size": "large"}`:                         `cannot unmarshal string`,
		`{"version": 2}`:                                          `version 2; this program reads version 1`,
		`{}`:                                                      `version 0; this program reads version 1`,
		`{"version": 1} {}`:                                       `configuration`,
	} {
		_, err := ensemble.ReadConfig([]byte(text))
		require.ErrorContains(t, err, want, text)
	}
	path := filepath.Join(t.TempDir(), "run.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"version": 1, "sead": 1}`), 0o644))
	_, err := ensemble.OpenConfig(path)
	require.ErrorContains(t, err, path+": ")
}

// Check refuses published weights of another encoder by their name, before they are
// downloaded.
func TestConfigWeights(t *testing.T) {
	for weights, arch := range map[string]string{
		"resnet34": "resnet18", "resnet18-5c106cde": "resnet34", "resnet18-f37072fd.pth": "resnet34", "resnet50": "resnet34", "resnet152-f82ba261": "resnet18",
	} {
		c := ensemble.Default(256, 16, 4)
		c.Data, c.Network.Encoder, c.Weights = "films", arch, weights
		err := c.Check()
		require.ErrorContains(t, err, "weights "+weights+" are of a resnet", weights)
		require.ErrorContains(t, err, "the encoder is a "+arch, weights)
	}
	for _, weights := range []string{"resnet34", "resnet34-333f7ec4", "resnet34-b627a593.pth", "mine-0123abcd.pth", "fold0.safetensors"} {
		c := ensemble.Default(256, 16, 4)
		c.Data, c.Weights = "films", weights
		require.NoError(t, c.Check(), weights)
	}
}

// A continued run has the number of threads and the data on the device of its first part,
// unless -threads or -device-data is given.
func TestContinuedMachine(t *testing.T) {
	defer nn.SetThreads(nn.Threads())
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "run.json"), []byte(`[{"threads": 2, "device_data": 5242880}, {"threads": 1}]`), 0o644))
	for _, c := range []struct {
		args    []string
		dir     string
		threads int
		data    int64
	}{{nil, "", 1, 0}, {nil, dir, 2, 5 << 20}, {[]string{"-threads", "3", "-device-data", "0"}, dir, 3, 0}, {[]string{"-device-data", "7"}, "", 1, 7 << 20}} {
		require.NoError(t, nn.SetThreads(1))
		set := flag.NewFlagSet("test", flag.ContinueOnError)
		f := ensemble.NewFlags(set)
		require.NoError(t, set.Parse(c.args))
		_, err := f.Machine(c.dir, dist.Config{})
		require.NoError(t, err)
		require.Equal(t, c.threads, nn.Threads())
		data, err := f.DeviceData(c.dir)
		require.NoError(t, err)
		require.Equal(t, c.data, data)
	}
}

// parse turns a command line into a description.
func parse(t *testing.T, args ...string) (ensemble.Config, error) {
	t.Helper()
	set := flag.NewFlagSet("test", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	f := ensemble.NewFlags(set)
	if err := set.Parse(args); err != nil {
		return ensemble.Config{}, err
	}
	return f.Config(nil)
}

// Without flags a recipe is not changed. Each flag changes only its own field,
// also with the value zero.
func TestFlags(t *testing.T) {
	c, err := parse(t)
	require.NoError(t, err)
	require.Equal(t, ensemble.Default(256, 16, 4), c)
	c, err = parse(t, "-recipe", "kernel", "-size", "128", "-batch", "8")
	require.NoError(t, err)
	require.Equal(t, ensemble.Kernel(128, 8, 4), c)

	c, err = parse(t, "-recipe", "kernel", "-weights", "resnet34", "-weight-decay", "0", "-threshold", "0", "-noise", "0", "-clip", "0",
		"-epochs-frozen", "1", "-epochs-full", "2", "-rate", "0.1", "-split", "patient", "-rule", "triplet", "-no-flip", "-seed", "7",
		"-mean", "0.5", "-std", "0.25", "-data", "films", "-classes", "background,heart", "-output", "sigmoid", "-precision", "bfloat16")
	require.NoError(t, err)
	want := ensemble.Kernel(256, 16, 4)
	want.Weights, want.Data, want.Seed = "resnet34", "films", 7
	want.Task.Classes, want.Task.Output = []string{"background", "heart"}, data.Sigmoid
	want.Training.WeightDecay, want.Training.Clip, want.Training.Precision = 0, 0, train.BFloat16
	want.Validation = ensemble.Validation{}
	want.Inference.MinSum, want.Inference.Rule, want.Inference.FlipAverage = 0, ensemble.Triplet, false
	want.Folds.Split = ensemble.ByPatient
	want.Input = train.Input{Mean: []float64{0.5, 0.5, 0.5}, Std: []float64{0.25, 0.25, 0.25}}
	want.Phases = ensemble.NotebookPhases(1, 2, 0.1, true)
	require.Equal(t, want, c)
	require.True(t, c.Phases[0].Frozen)
	require.Equal(t, "frozen", c.Phases[0].Name)

	// Flags change a description from a file.
	path := filepath.Join(t.TempDir(), "run.json")
	b, err := c.JSON()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, b, 0o644))
	again, err := parse(t, "-config", path)
	require.NoError(t, err)
	require.Equal(t, c, again)
	again, err = parse(t, "-config", path, "-epochs-full", "5", "-seed", "8")
	require.NoError(t, err)
	require.Equal(t, []string{"phases", "seed"}, c.Differences(again))
	require.Equal(t, ensemble.NotebookPhases(1, 5, 0.1, true), again.Phases)

	c, err = parse(t, "-no-mirror")
	require.NoError(t, err)
	c.Data = "films"
	require.NoError(t, c.Check())
	require.Equal(t, []string{"augmentation.p_flip", "data", "inference.flip_average", "task.no_mirror"}, c.Differences(ensemble.Default(256, 16, 4)))

	for _, wrong := range [][]string{{"-seed", "12x"}, {"-seed", "-1"}, {"-mean", "0.5;0.2"}, {"-std", "0.2 0.3"}} {
		_, err = parse(t, wrong...)
		require.ErrorContains(t, err, "invalid syntax", wrong)
	}

	_, err = parse(t, "-recipe", "best")
	require.ErrorContains(t, err, `recipe "best", wanted default or kernel`)
	_, err = parse(t, "-recipe", "kernel", "-config", path)
	require.ErrorContains(t, err, "together with a description")
	_, err = parse(t, "-rate", "-1")
	require.ErrorContains(t, err, "learning rate -1")
	_, err = parse(t, "-epochs-full", "-1")
	require.ErrorContains(t, err, "-1 epochs")

	var tree map[string]any
	require.NoError(t, json.Unmarshal(b, &tree))
	tree["phases"] = []any{map[string]any{"name": "warm", "epochs": 1, "rates": []float64{1, 1, 1}}}
	b, err = json.Marshal(tree)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, b, 0o644))
	_, err = parse(t, "-config", path, "-rate", "0.1")
	require.ErrorContains(t, err, `a phase called "warm"`)
}
