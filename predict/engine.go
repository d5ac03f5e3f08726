package predict

// An Engine computes with an artifact's networks. Its caller makes one call at a
// time, though not always from the same goroutine.
type Engine interface {
	// Probabilities returns the probabilities (n, K, H, W) of n images (n, C, H, W)
	// with values in [0, 1]: C is Task.Channels, K is Task.Outputs, H and W are
	// Model.Size. They are the mean over the folds, and over each image and its
	// mirror image where Inference.Flip says so; Inference.Input is the engine's to
	// apply. The result is valid until the next call.
	//
	// An error is about these images alone, and the engine can go on.
	Probabilities(images []float32, n int) ([]float32, error)

	// Close frees everything. No call follows.
	Close() error
}

// A Batcher is an Engine that knows how many images it should be given at a time,
// where Options.Batch does not say it: 1 for one that gains nothing by more.
type Batcher interface {
	Batch() int
}

// A Backend opens engines for artifacts. Its package has its options.
type Backend interface {
	// Open returns an engine for all folds of an artifact that has passed Check. The
	// engine may keep a.Model; the tensors are dropped after the call.
	Open(a *Artifact) (Engine, error)
}
