// Package predict takes a film to an answer with a trained model: probabilities, a
// mask of the film's own size, how large and where it is.
//
//	p, err := predict.Open("model.safetensors", libtorch.Backend{}, nil)
//	defer p.Close()
//	r, err := p.File(ctx, "film.dcm")
//
// A model is one file, an [Artifact]: the weights of all folds, and a [Model] that
// says how films are prepared, what the network is, and which operating point was
// chosen. A [Backend] computes with the weights; those are packages of their own, so
// that this one needs neither libtorch nor a C++ compiler.
//
// Predictions are for research use, not for diagnosis.
package predict

// Notice stands wherever a result is shown.
const Notice = "research use, not for diagnosis"

// PhantomNotice stands beside it for a model that was trained on phantoms.
const PhantomNotice = "trained on drawn phantoms, not on patients"
