// Package onnx is the backend of package predict that computes with ONNX Runtime instead
// of libtorch. A program that imports it loads ONNX Runtime's shared library when it
// opens a model. Compiling needs cgo and a C compiler, but no C++ compiler and no header
// or library of ONNX Runtime.
//
//	p, err := onnx.Open("model.safetensors", onnx.Backend{}, nil)
//
// ONNX Runtime must be version 1.24 or newer. Unless Backend.Library names the library,
// it is the one that $ONNXRUNTIME names (the file or its folder), or else the first one
// found in LD_LIBRARY_PATH, in the Python packages onnxruntime, onnxruntime-openvino or
// onnxruntime-gpu of the active environment, the user and the system, and in the
// system's library folders.
package onnx

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	library "github.com/hcunet/hcunet/internal/onnxruntime"
	"github.com/hcunet/hcunet/internal/words"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/onnxfile"
	ort "github.com/yalue/onnxruntime_go"
)

// Provider is the execution provider: the part of ONNX Runtime that computes. The library
// must have been built with it.
type Provider int

const (
	CPU      Provider = iota // ONNX Runtime's own provider, in every library
	OpenVINO                 // Intel's OpenVINO on the CPU: pip install onnxruntime-openvino
	CUDA                     // NVIDIA's CUDA: pip install onnxruntime-gpu
)

var providers = words.Choice[Provider]{What: "provider", Words: []string{"cpu", "openvino", "cuda"}}

func (p Provider) String() string { return providers.Word(p) }

// MarshalText returns "cpu", "openvino" or "cuda".
func (p Provider) MarshalText() ([]byte, error) { return providers.Marshal(p) }

// UnmarshalText reads what MarshalText writes.
func (p *Provider) UnmarshalText(text []byte) (err error) {
	*p, err = providers.Parse(text)
	return err
}

// A Backend computes with ONNX Runtime. The zero Backend computes on the CPU in float32.
type Backend struct {
	Provider Provider
	Threads  int // threads on the CPU; 0 means ONNX Runtime's default, for OpenVINO runtime.NumCPU

	// BFloat16 makes OpenVINO compute in bfloat16 if the processor has instructions for
	// it. It is an error with other providers.
	BFloat16 bool

	// Together computes the images of a batch together. Otherwise each image is computed
	// alone, so that a film's probabilities do not depend on the other films in its
	// batch, not even in their last bits.
	Together bool

	// Library is the path of ONNX Runtime's shared library; "" searches for it as the
	// package comment says. A process can load only one library.
	Library string

	// File is the path of an ONNX file that package onnxfile has written. If it is not "",
	// the network is read from it and not from the artifact.
	File string
}

// Open opens the model at path: an ONNX file that package onnxfile has written, if path
// ends in .onnx, otherwise an artifact. For an ONNX file, opt.Folds must be nil, and
// opt.Flip must be nil or the value with which the file was written.
func Open(path string, b Backend, opt *predict.Options) (*predict.Predictor, error) {
	if !IsFile(path) {
		return predict.Open(path, b, opt)
	}
	m, _, err := onnxfile.ReadModel(path)
	if err != nil {
		return nil, err
	}
	if opt != nil && opt.Folds != nil {
		return nil, fmt.Errorf("onnx: %s is the mean of all its %d networks; to choose some, take the artifact, or export them", path, m.Folds)
	}
	b.File = path
	return predict.New(&predict.Artifact{Model: *m}, b, opt)
}

// IsFile reports whether path ends in .onnx, in any case.
func IsFile(path string) bool { return strings.EqualFold(filepath.Ext(path), ".onnx") }

// Open implements predict.Backend. It loads ONNX Runtime's library if no earlier call has.
func (b Backend) Open(a *predict.Artifact) (predict.Engine, error) {
	e := &engine{size: a.Size(), channels: a.Task.Channels, outputs: a.Task.Outputs(), together: b.Together}
	var model []byte
	var err error
	if b.File == "" {
		o := &onnxfile.Options{Fixed: true, Batch: 1}
		if b.Together {
			o.Batch = 0
		}
		model, err = onnxfile.Bytes(a, o)
	} else {
		err = e.fits(a, b.File)
	}
	if err != nil {
		return nil, err
	}
	if err := load(b.Library); err != nil {
		return nil, err
	}
	o, err := b.options()
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	in, out := []string{onnxfile.Input}, []string{onnxfile.Output}
	if b.File == "" {
		e.session, err = ort.NewDynamicAdvancedSessionWithONNXData(model, in, out, o)
	} else {
		e.session, err = ort.NewDynamicAdvancedSession(b.File, in, out, o)
	}
	if err != nil {
		return nil, fmt.Errorf("onnx: ONNX Runtime cannot open the model by provider %s: %w", b.Provider, err)
	}
	return e, nil
}

// fits returns an error if file does not compute what the model of a says. It sets
// e.bytes.
func (e *engine) fits(a *predict.Artifact, file string) error {
	m, takesBytes, err := onnxfile.ReadModel(file)
	if err != nil {
		return err
	}
	e.bytes = takesBytes
	switch {
	case m.Inference.Flip != a.Inference.Flip:
		return fmt.Errorf("onnx: %s was exported with the mean over mirror images: %t, wanted %t; take the artifact, or export it anew", file, m.Inference.Flip, a.Inference.Flip)
	case m.Folds != a.Folds || m.Size() != a.Size() || m.Task.Channels != a.Task.Channels || m.Task.Outputs() != a.Task.Outputs():
		return fmt.Errorf("onnx: %s is another model's: %d networks for images of %d channels and %d pixels, and %d outputs; wanted %d, %d, %d and %d", file,
			m.Folds, m.Task.Channels, m.Size(), m.Task.Outputs(), a.Folds, a.Task.Channels, a.Size(), a.Task.Outputs())
	}
	return nil
}

var (
	loading sync.Mutex
	loaded  string // the path of the library in use
)

// load loads the library at path, or with "" the one that is found. Later calls do
// nothing, or return an error if they name another library.
func load(path string) error {
	loading.Lock()
	defer loading.Unlock()
	if loaded != "" {
		if path != "" && path != loaded {
			return fmt.Errorf("onnx: this process has loaded %s already, and cannot load %s as well", loaded, path)
		}
		return nil
	}
	if path == "" {
		var err error
		if path, err = library.Find(); err != nil {
			return fmt.Errorf("onnx: %w", err)
		}
	}
	if v := library.Version(path); v != 0 && v < library.Least {
		return fmt.Errorf("onnx: %s is too old; wanted version 1.%d or newer: %s", path, library.Least, library.Get)
	}
	ort.SetSharedLibraryPath(path)
	if err := ort.InitializeEnvironment(ort.WithLogLevelError()); err != nil {
		return fmt.Errorf("onnx: %s cannot be loaded (wanted version 1.%d or newer: %s): %w", path, library.Least, library.Get, err)
	}
	loaded = path
	return nil
}

// Version loads the library, if no call has yet, and returns its version and path.
func Version() (version, path string, err error) {
	if err := load(""); err != nil {
		return "", "", err
	}
	return ort.GetVersion(), loaded, nil
}

// options returns the options of a session. The caller must destroy them.
func (b Backend) options() (o *ort.SessionOptions, err error) {
	if b.Threads < 0 {
		return nil, fmt.Errorf("onnx: %d threads; wanted 0 for the library's choice, or more", b.Threads)
	}
	if b.BFloat16 && b.Provider != OpenVINO {
		return nil, fmt.Errorf("onnx: bfloat16 by provider %s; only %s computes in it", b.Provider, OpenVINO)
	}
	if o, err = ort.NewSessionOptions(); err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	err = errors.Join(
		o.SetIntraOpNumThreads(b.Threads),
		// Idle threads sleep at once instead of spinning, so that others can use the cores.
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		b.provider(o),
	)
	if err != nil {
		o.Destroy()
		return nil, fmt.Errorf("onnx: provider %s: %w", b.Provider, err)
	}
	return o, nil
}

func (b Backend) provider(o *ort.SessionOptions) error {
	switch b.Provider {
	case CPU:
		return nil
	case OpenVINO:
		precision := "f32"
		if b.BFloat16 {
			precision = "bf16"
		}
		threads := b.Threads
		if threads == 0 {
			threads = runtime.NumCPU()
		}
		config := `{"CPU": {"INFERENCE_PRECISION_HINT": "` + precision + `", "INFERENCE_NUM_THREADS": ` + strconv.Itoa(threads) + `}}`
		return o.AppendExecutionProviderOpenVINO(map[string]string{"device_type": "CPU", "load_config": config})
	case CUDA:
		cuda, err := ort.NewCUDAProviderOptions()
		if err != nil {
			return err
		}
		defer cuda.Destroy()
		return o.AppendExecutionProviderCUDA(cuda)
	}
	return errors.New("wanted cpu, openvino or cuda")
}

type engine struct {
	session                 *ort.DynamicAdvancedSession
	size, channels, outputs int
	together, bytes         bool

	whole []byte // the images with 8 bits, if the file takes them so
	prob  []float32
}

// Probabilities implements predict.Engine.
func (e *engine) Probabilities(images []float32, n int) ([]float32, error) {
	in, out := e.channels*e.size*e.size, e.outputs*e.size*e.size
	if len(images) != n*in {
		return nil, fmt.Errorf("onnx: %d values for %d images; wanted %d", len(images), n, n*in)
	}
	if cap(e.prob) < n*out {
		e.prob = make([]float32, n*out)
	}
	e.prob = e.prob[:n*out]
	step := 1
	if e.together {
		step = n
	}
	for i := 0; i < n; i += step {
		if err := e.run(images[i*in:(i+step)*in], e.prob[i*out:(i+step)*out], step); err != nil {
			return nil, err
		}
	}
	return e.prob, nil
}

// run computes the probabilities of n images together. The library reads and writes the
// memory of Go's slices, which is pinned while it runs.
func (e *engine) run(images, prob []float32, n int) error {
	var pinned runtime.Pinner
	defer pinned.Unpin()
	side := int64(e.size)
	shape := ort.NewShape(int64(n), int64(e.channels), side, side)
	var in ort.Value
	var err error
	if e.bytes {
		e.whole = e.whole[:0]
		for _, v := range images {
			e.whole = append(e.whole, uint8(math.Round(float64(v)*255)))
		}
		pinned.Pin(&e.whole[0])
		in, err = ort.NewTensor(shape, e.whole)
	} else {
		pinned.Pin(&images[0])
		in, err = ort.NewTensor(shape, images)
	}
	if err != nil {
		return fmt.Errorf("onnx: %w", err)
	}
	defer in.Destroy()
	pinned.Pin(&prob[0])
	out, err := ort.NewTensor(ort.NewShape(int64(n), int64(e.outputs), side, side), prob)
	if err != nil {
		return fmt.Errorf("onnx: %w", err)
	}
	defer out.Destroy()
	if err := e.session.Run([]ort.Value{in}, []ort.Value{out}); err != nil {
		return fmt.Errorf("onnx: %w", err)
	}
	return nil
}

// Batch implements predict.Batcher.
func (e *engine) Batch() int {
	if e.together {
		return 8
	}
	return 1
}

// Close implements predict.Engine.
func (e *engine) Close() error {
	if err := e.session.Destroy(); err != nil {
		return fmt.Errorf("onnx: %w", err)
	}
	return nil
}
