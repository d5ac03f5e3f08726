// Package predict computes the masks of a film with a trained model. A film is a DICOM,
// PNG or JPEG image; a [Result] has the probabilities, a mask of the film's size for
// each class, and the mask's area and position.
//
//	p, err := predict.Open("model.safetensors", libtorch.Backend{}, nil)
//	defer p.Close()
//	r, err := p.File(ctx, "film.dcm")
//
// A model is one file, an [Artifact]: the weights of all folds, and a [Model] that
// describes the preparation of films, the network and the operating point. A [Backend]
// computes with the weights. Backends are in packages of their own, so this package
// needs neither libtorch nor a C++ compiler.
//
// Predictions are for research use, not for diagnosis.
package predict

// Notice must be shown with every result.
const Notice = "research use, not for diagnosis"

// PhantomNotice must be shown as well if the model was trained on phantoms, which are
// drawings of a program.
const PhantomNotice = "trained on drawn phantoms, not on patients"
