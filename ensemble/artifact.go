package ensemble

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/phantom"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/train"
)

// artifact returns the trained model: the weights of all folds, and what a Predictor
// needs to treat a film as this run treats a test image. If it is not known how the
// images were prepared, it can only predict prepared images.
func (r *run) artifact(res *Result) (*predict.Artifact, error) {
	network, err := json.Marshal(r.cfg.Network)
	if err != nil {
		return nil, err
	}
	a := &predict.Artifact{Model: predict.Model{
		Name: filepath.Base(r.cfg.Data), Task: r.cfg.Task, Preparation: data.Preparation{Size: r.cfg.Size, MaskScaling: resize.MaskNearest, Bits: 8},
		Network: network, Folds: len(r.folds),
		Inference: predict.Inference{
			Input: predict.Input{Mean: r.cfg.Input.Mean, Std: r.cfg.Input.Std},
			Flip:  r.cfg.Inference.FlipAverage,
		},
		Training: r.learned(), Versions: predict.Versions(),
	}}
	if p := r.cfg.Preparation; p != nil {
		a.Preparation = *p
		if p.Size != r.cfg.Size {
			a.Inference.Size = r.cfg.Size
		}
	}
	if p := r.cfg.Training.Precision; p != train.Full {
		a.Inference.Precision = p.String()
	}
	a.Versions["libtorch"] = nn.LibtorchVersion()
	for _, c := range res.Classes {
		a.Point.Rules = append(a.Point.Rules, c.Rule)
		a.Scores = append(a.Scores, predict.NewScore(c.Name, c.OutOfFold))
	}
	for f := range r.folds {
		weights, err := checkpoint.Open(r.out.path("fold%d.safetensors", f))
		if err != nil {
			return nil, fmt.Errorf("fold %d: %w", f, err)
		}
		a.Weights = append(a.Weights, weights)
	}
	return a, a.Check()
}

// learned describes the images on which the networks were trained.
func (r *run) learned() predict.Training {
	t := predict.Training{
		Data: filepath.Base(r.cfg.Data), Images: r.images.Len(), Names: predict.NamesDigest(names(r.images)),
		Positives: make([]int, len(r.cfg.Task.Classes)-1),
	}
	patients := map[string]bool{}
	for i, s := range r.ds.Train {
		for c := range t.Positives {
			if r.images.Pixels(i, uint8(c+1)) > 0 {
				t.Positives[c]++
			}
		}
		if s.Patient != "" {
			patients[s.Patient] = true
		}
		t.Phantoms = t.Phantoms || phantom.Is(s.Name)
	}
	t.Patients = len(patients)
	return t
}
