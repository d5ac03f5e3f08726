package predict

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/internal/strict"
)

// An Artifact is a trained model with its weights.
type Artifact struct {
	Model

	// Weights has the state of the network of each fold, with the tensor names of its
	// state dict. It is empty if the backend takes the weights from another file, as
	// package onnx can.
	Weights []*checkpoint.File
}

// The metadata of an artifact's file. Its tensors are called fold0.NAME, fold1.NAME, ...
const (
	formatKey  = "format"
	format     = "hcunet model"
	versionKey = "format_version"
	version    = 1
	modelKey   = "model"  // the Model as JSON
	noticeKey  = "notice" // the notices, for people who look into the file
)

// Check returns an error if the model does not pass its Check, or if the number of
// weights is neither 0 nor Folds.
func (a *Artifact) Check() error {
	if err := a.Model.Check(); err != nil {
		return err
	}
	if n := len(a.Weights); n != 0 && n != a.Folds {
		return fmt.Errorf("predict: weights of %d networks, but the model has %d folds", n, a.Folds)
	}
	for i, w := range a.Weights {
		if w == nil || len(w.Tensors) == 0 {
			return fmt.Errorf("predict: fold %d has no weights", i)
		}
	}
	return nil
}

// Choose returns an artifact with only the given folds, in the given order. A fold that
// does not exist, a fold given twice, and no fold at all are errors.
func (a *Artifact) Choose(folds []int) (*Artifact, error) {
	chosen := &Artifact{Model: a.Model}
	chosen.Folds = len(folds)
	for i, f := range folds {
		switch {
		case f < 0 || f >= len(a.Weights):
			return nil, fmt.Errorf("predict: there is no fold %d; the model has folds 0 to %d", f, len(a.Weights)-1)
		case slices.Contains(folds[:i], f):
			return nil, fmt.Errorf("predict: fold %d was chosen twice", f)
		}
		chosen.Weights = append(chosen.Weights, a.Weights[f])
	}
	return chosen, chosen.Check()
}

// WriteArtifact writes an artifact to path as a safetensors file that contains its own
// digest. After an error there is no incomplete file at path. Equal artifacts give equal
// bytes.
func WriteArtifact(path string, a *Artifact) error {
	if err := a.Check(); err != nil {
		return err
	}
	if len(a.Weights) == 0 {
		return errors.New("predict: the artifact has no weights to write")
	}
	model, err := json.Marshal(&a.Model)
	if err != nil {
		return fmt.Errorf("predict: %w", err)
	}
	f := &checkpoint.File{Metadata: map[string]string{
		formatKey: format, versionKey: strconv.Itoa(version), modelKey: string(model),
		noticeKey: strings.Join(a.Notices(), "; "),
	}}
	for i, w := range a.Weights {
		for _, t := range w.Tensors {
			t.Name = fmt.Sprintf("fold%d.%s", i, t.Name)
			f.Tensors = append(f.Tensors, t)
		}
	}
	return checkpoint.SaveSafetensors(path, f)
}

// ReadArtifact reads the artifact at path. It returns an error for a file that is
// damaged, incomplete, of another kind or of another version.
func ReadArtifact(path string) (*Artifact, error) {
	f, err := checkpoint.OpenSafetensors(path)
	var broken *checkpoint.FormatError
	var changed *checkpoint.DigestError
	if errors.As(err, &broken) || errors.As(err, &changed) {
		return nil, fmt.Errorf("predict: the model is damaged; copy it again: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("predict: cannot read the model: %w", err)
	}
	a, err := artifact(f)
	if err != nil {
		return nil, fmt.Errorf("predict: %s: %s", path, strings.TrimPrefix(err.Error(), "predict: "))
	}
	return a, nil
}

func artifact(f *checkpoint.File) (*Artifact, error) {
	if f.Metadata[formatKey] != format {
		return nil, errors.New("it holds tensors, but is no model: wanted a file that the end of a training writes, model.safetensors")
	}
	if v := f.Metadata[versionKey]; v != strconv.Itoa(version) {
		return nil, fmt.Errorf("a model of version %q; this program reads version %d: take the release that wrote it, or write it anew", v, version)
	}
	if f.Digest == "" {
		return nil, errors.New("its digest is missing, so nobody knows whether it is whole; copy the model again")
	}
	text, ok := f.Metadata[modelKey]
	if !ok {
		return nil, errors.New("the description of the model is missing; write it anew")
	}
	a := &Artifact{}
	if err := ParseModel([]byte(text), &a.Model); err != nil {
		return nil, err
	}
	a.Digest = f.Digest
	a.Weights = make([]*checkpoint.File, a.Folds)
	for i := range a.Weights {
		a.Weights[i] = &checkpoint.File{}
	}
	for _, t := range f.Tensors {
		fold, name, err := foldOf(t.Name)
		if err != nil {
			return nil, err
		}
		if fold >= a.Folds {
			return nil, fmt.Errorf("it has the tensor %s, but %d folds", t.Name, a.Folds)
		}
		t.Name = name
		a.Weights[fold].Tensors = append(a.Weights[fold].Tensors, t)
	}
	return a, a.Check()
}

// foldOf splits the name of a tensor, "fold0.layers.0.weight", into fold and name.
func foldOf(tensor string) (fold int, name string, err error) {
	prefix, name, dot := strings.Cut(tensor, ".")
	number, named := strings.CutPrefix(prefix, "fold")
	fold, err = strconv.Atoi(number)
	if err != nil || !dot || !named || fold < 0 || name == "" {
		return 0, "", fmt.Errorf("it has a tensor %.80q; wanted names like fold0.layers.0.weight", tensor)
	}
	return fold, name, nil
}

// ParseModel reads a Model from its JSON and checks it. A missing field, an unknown
// field and an impossible value are errors.
func ParseModel(text []byte, m *Model) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return fmt.Errorf("predict: description of the model: %w", err)
	}
	for _, name := range []string{"task", "preparation", "network", "folds", "inference", "operating_point", "scores", "training", "versions"} {
		if _, ok := members[name]; !ok {
			return fmt.Errorf("predict: description of the model: %q is missing", name)
		}
	}
	*m = Model{}
	if err := strict.Unmarshal("predict: description of the model", text, m); err != nil {
		return err
	}
	return m.Check()
}
