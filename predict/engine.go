package predict

// An Engine computes probabilities with the networks of an artifact. A Predictor makes
// one call at a time, but not always from the same goroutine.
type Engine interface {
	// Probabilities returns the probabilities (n, K, H, W) of n images (n, C, H, W)
	// with values in [0, 1]: C is Task.Channels, K is Task.Outputs, H and W are
	// Model.Size. They are the mean over the folds, and with Inference.Flip also over
	// each image and its mirror image. The engine applies Inference.Input to the images.
	// The result is valid until the next call.
	//
	// After an error the engine can compute other images.
	Probabilities(images []float32, n int) ([]float32, error)

	// Close frees everything. It is the last call.
	Close() error
}

// A Batcher is an Engine that recommends a batch size.
type Batcher interface {
	// Batch returns the number of images for each call of Probabilities if
	// Options.Batch is 0. It is 1 for an engine that is not faster with more.
	Batch() int
}

// A Backend opens engines for artifacts. The type that implements it holds the options of
// its engines.
type Backend interface {
	// Open returns an engine for all folds of an artifact that has passed Check. The
	// engine may keep a.Model but not a.Weights.
	Open(a *Artifact) (Engine, error)
}
