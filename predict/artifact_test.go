package predict

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/metric"
	"github.com/stretchr/testify/require"
)

// small returns an artifact of two folds for grey images of 8x8 pixels.
func small() *Artifact {
	p := data.KernelPreparation()
	p.Size, p.CLAHE = 8, false
	weights := func(v float32) *checkpoint.File {
		return &checkpoint.File{Tensors: []checkpoint.Tensor{
			checkpoint.FromFloat32("layers.0.weight", []float32{v, 1, 2}, 3),
			checkpoint.FromInt64("layers.1.count", []int64{5}, 1),
		}}
	}
	return &Artifact{
		Model: Model{
			Name: "small", Task: data.Binary("lung"), Preparation: p,
			Network: json.RawMessage(`{"encoder":"resnet18"}`), Folds: 2,
			Inference: Inference{Input: Input{Mean: data.Values{0.5}, Std: data.Values{0.25}}, Flip: true},
			Point:     OperatingPoint{Rules: []metric.Rule{metric.ThresholdRule(0.5, 0)}},
			Scores:    []Score{{Class: "lung", Dice: 0.75, Images: 4, Positives: 3}},
			Training:  Training{Images: 12, Positives: []int{9}, Names: NamesDigest([]string{"b", "a"})},
			Versions:  map[string]string{"go": "go1"},
		},
		Weights: []*checkpoint.File{weights(0), weights(7)},
	}
}

func TestArtifactRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	want := small()
	require.NoError(t, WriteArtifact(path, want))
	got, err := ReadArtifact(path)
	require.NoError(t, err)
	require.Regexp(t, "^[0-9a-f]{64}$", got.Digest)
	want.Digest = got.Digest
	require.Equal(t, want.Model, got.Model)
	require.Equal(t, want.Weights, got.Weights)

	one, err := got.Choose([]int{1})
	require.NoError(t, err)
	require.Equal(t, 1, one.Folds)
	require.Equal(t, want.Weights[1:], one.Weights)
	_, err = got.Choose([]int{2})
	require.EqualError(t, err, "predict: there is no fold 2; the model has folds 0 to 1")
	_, err = got.Choose(nil)
	require.ErrorContains(t, err, "0 folds; wanted 1")
}

// ReadArtifact refuses files that are damaged, incomplete, of another kind or of another
// version.
func TestArtifactErrors(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "model.safetensors")
	require.NoError(t, WriteArtifact(whole, small()))
	bytes, err := os.ReadFile(whole)
	require.NoError(t, err)
	files := 0
	next := func() string { files++; return filepath.Join(dir, strconv.Itoa(files)) }
	damaged := func(change func([]byte) []byte) string {
		path := next()
		require.NoError(t, os.WriteFile(path, change(append([]byte(nil), bytes...)), 0o600))
		return path
	}
	written := func(change func(f *checkpoint.File)) string {
		f, err := checkpoint.OpenSafetensors(whole)
		require.NoError(t, err)
		change(f)
		path := next()
		require.NoError(t, checkpoint.SaveSafetensors(path, f))
		return path
	}
	model := func(change func(m map[string]any)) string {
		return written(func(f *checkpoint.File) {
			var m map[string]any
			require.NoError(t, json.Unmarshal([]byte(f.Metadata[modelKey]), &m))
			change(m)
			b, err := json.Marshal(m)
			require.NoError(t, err)
			f.Metadata[modelKey] = string(b)
		})
	}
	for name, c := range map[string]struct{ path, want string }{
		"absent":        {filepath.Join(dir, "none"), "no such file"},
		"cut off":       {damaged(func(b []byte) []byte { return b[:len(b)-3] }), "the model is damaged; copy it again"},
		"a bit flipped": {damaged(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), "SHA-256"},
		"weights alone": {written(func(f *checkpoint.File) { delete(f.Metadata, formatKey) }), "it holds tensors, but is no model"},
		"newer":         {written(func(f *checkpoint.File) { f.Metadata[versionKey] = "2" }), `a model of version "2"; this program reads version 1`},
		"no model":      {written(func(f *checkpoint.File) { delete(f.Metadata, modelKey) }), "the description of the model is missing"},
		"no JSON":       {written(func(f *checkpoint.File) { f.Metadata[modelKey] = "{" }), "description of the model: unexpected end"},
		"no weights":    {written(func(f *checkpoint.File) { f.Tensors = f.Tensors[:2] }), "fold 1 has no weights"},
		"foreign name":  {written(func(f *checkpoint.File) { f.Tensors[0].Name = "layers.0" }), `it has a tensor "layers.0"; wanted names like fold0.`},
		"fold too many": {written(func(f *checkpoint.File) { f.Tensors[0].Name = "fold2.a" }), "it has the tensor fold2.a, but 2 folds"},
		"no task":       {model(func(m map[string]any) { delete(m, "task") }), `"task" is missing`},
		"no network":    {model(func(m map[string]any) { delete(m, "network") }), `"network" is missing`},
		"null network":  {model(func(m map[string]any) { m["network"] = nil }), "network: wanted a JSON object"},
		"unknown":       {model(func(m map[string]any) { m["colour"] = 1 }), `unknown field "colour"`},
		"many folds":    {model(func(m map[string]any) { m["folds"] = 1e6 }), "1000000 folds; wanted 1 to 1000"},
		"no rule":       {model(func(m map[string]any) { m["operating_point"] = map[string]any{} }), "0 rules; wanted 1"},
		"mirrored":      {model(func(m map[string]any) { m["task"].(map[string]any)["no_mirror"] = true }), "a mirror image has other classes"},
		"size":          {model(func(m map[string]any) { m["preparation"].(map[string]any)["size"] = 0 }), "size 0"},
		"input":         {model(func(m map[string]any) { m["inference"] = map[string]any{"input": map[string]any{"mean": 1, "std": 0}} }), "a positive one"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadArtifact(c.path)
			require.ErrorContains(t, err, c.want)
			t.Log(err)
		})
	}
	require.ErrorContains(t, WriteArtifact(whole, &Artifact{Model: small().Model}), "no weights to write")
}

func TestPhantomNotice(t *testing.T) {
	m := &small().Model
	require.Equal(t, []string{Notice}, m.Notices())
	m.Training.Phantoms = true
	require.Equal(t, []string{Notice, PhantomNotice}, m.Notices())
}

func TestNamesDigest(t *testing.T) {
	require.Equal(t, NamesDigest([]string{"a", "bc"}), NamesDigest([]string{"bc", "a"}))
	require.NotEqual(t, NamesDigest([]string{"a", "bc"}), NamesDigest([]string{"ab", "c"}))
}

// A description that ParseModel accepts can be used: it has a Preparer and a card, and
// is read again from its own JSON.
func FuzzParseModel(f *testing.F) {
	b, err := json.Marshal(&small().Model)
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"task":null,"preparation":{"size":8},"network":{},"folds":1,"inference":{},"operating_point":{},"scores":[],"training":{},"versions":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m Model
		if ParseModel(text, &m) != nil {
			return
		}
		_, err := data.NewPreparer(m.Preparation, m.Task)
		require.NoError(t, err)
		require.NotEmpty(t, m.Card())
		again, err := json.Marshal(&m)
		require.NoError(t, err)
		var same Model
		require.NoError(t, ParseModel(again, &same), "%s", again)
	})
}

func TestCard(t *testing.T) {
	card := small().Card()
	t.Logf("\n%s", card)
	for _, want := range []string{
		"Research use, not for diagnosis", "lung", "1 channel of 8 bits, brought to 8x8 pixels (stretch)",
		"mean of 2 networks, each over the film and its mirror image, by softmax", "above 0.5",
		"12 images", "9 with lung", "made with      go go1",
		"lung on 4 held-out images, 3 with it", "Dice 0.7500; finding nothing anywhere scores 0.2500",
	} {
		require.Contains(t, card, want)
	}
}
