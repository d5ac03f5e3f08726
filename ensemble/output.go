package ensemble

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
	"github.com/hcunet/hcunet/rle"
)

// An output is the folder of a run. Files appear in it whole or not at all.
type output string

// begin makes the folder and says how the run is made.
func (o output) begin(cfg Config) error {
	if err := os.MkdirAll(string(o), 0o755); err != nil {
		return err
	}
	config := map[string]any{"started": time.Now().Format(time.RFC3339)}
	for _, n := range cfg.notes() {
		config[n.name] = n.value
	}
	return o.json("config.json", config)
}

// A note is one choice of a run, or a fact about the program that made it.
type note struct {
	name  string
	value any
}

// notes returns what is to be known about how a run was made.
func (c *Config) notes() []note {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Path + " " + info.Main.Version
	}
	return []note{
		{"command", strings.Join(c.Command, " ")},
		{"data", c.Data}, {"masks", c.Masks.String()}, {"arch", c.Arch}, {"weights", c.Weights}, {"recipe", c.Recipe.String()},
		{"device", c.Device.String()}, {"precision", c.Precision.String()}, {"threads", nn.Threads()},
		{"size", c.Size}, {"batch", c.Batch}, {"accumulate", c.Accumulate}, {"clip", c.Clip},
		{"folds", c.Folds}, {"split", c.Split}, {"seed", c.Seed},
		{"frozen_epochs", c.FrozenEpochs}, {"full_epochs", c.FullEpochs}, {"rate", c.Rate},
		{"batch_norm_momentum", c.batchNormMomentum()}, {"mean", c.Mean}, {"std", c.Std},
		{"threshold", c.Threshold}, {"noise", c.noise()}, {"film_size", c.FilmSize},
		{"program", version}, {"go", runtime.Version()}, {"libtorch", nn.LibtorchVersion()},
	}
}

func (o output) json(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(o.path("%s", name), append(b, '\n'))
}

// epochs writes the epochs of the folds so far, the fold in front of the phase.
func (o output) epochs(folds [][]metric.Epoch) error {
	var all []metric.Epoch
	for f, epochs := range folds {
		for _, e := range epochs {
			e.Phase = fmt.Sprintf("fold %d %s", f, e.Phase)
			all = append(all, e)
		}
	}
	return atomicfile.Write(o.path("epochs.csv"), func(w io.Writer) error { return report.WriteEpochs(w, all) })
}

// scores writes the result for people and for programs.
func (o output) scores(r *Result) error {
	if err := atomicfile.WriteFile(o.path("scores.txt"), []byte(r.String())); err != nil {
		return err
	}
	return o.json("scores.json", map[string]any{
		"scores": r.Scores, "mean_score": r.MeanScore(), "thresholds": r.Thresholds, "threshold": r.Threshold,
		"out_of_fold": r.OutOfFold, "all_empty": r.OutOfFold.AllEmpty(), "choices": r.Choices,
	})
}

// predictions are probabilities as bytes, the way the notebook saves them.
type predictions struct {
	images, size int
	data         []byte
}

func newPredictions(images, size int) *predictions {
	return &predictions{images, size, make([]byte, 0, images*size*size)}
}

// add takes the next image: 255 times the probability, rounded down.
func (p *predictions) add(prob []float32) {
	for _, v := range prob {
		p.data = append(p.data, uint8(v*255))
	}
}

func names(images *feed.Images) []string {
	names := make([]string, images.Len())
	for i := range names {
		names[i] = images.Name(i)
	}
	return names
}

// predictions writes predictions and the names of their images.
func (o output) predictions(of string, p *predictions, names []string) error {
	err := atomicfile.Write(o.path("preds_%s.npy", of), func(w io.Writer) error { return p.writeNPY(w) })
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(o.path("items_%s.txt", of), []byte(strings.Join(names, "\n")+"\n"))
}

// writeNPY writes a uint8 array (images, size, size).
//
// Source: numpy.lib.format, version 1.0.
func (p *predictions) writeNPY(w io.Writer) error {
	const align = 64
	header := fmt.Sprintf("{'descr': '|u1', 'fortran_order': False, 'shape': (%d, %d, %d), }", p.images, p.size, p.size)
	const before = 10 // magic, version, length
	header += strings.Repeat(" ", align-(before+len(header)+1)%align) + "\n"
	if _, err := io.WriteString(w, "\x93NUMPY\x01\x00"); err != nil {
		return err
	}
	if err := binary.Write(w, binary.LittleEndian, uint16(len(header))); err != nil {
		return err
	}
	if _, err := io.WriteString(w, header); err != nil {
		return err
	}
	_, err := w.Write(p.data)
	return err
}

// submit averages the test predictions and writes them as bytes and as runs. It
// returns how many images have any.
func (r *run) submit() (masks int, err error) {
	bytes := newPredictions(r.test.Len(), r.Size)
	rows := make([]maskcsv.Row, r.test.Len())
	for i, prob := range r.testSum {
		for j := range prob {
			prob[j] /= float32(len(r.folds))
		}
		bytes.add(prob)
		metric.RemoveNoise(prob, r.noise())
		runs, err := r.encode(prob, r.geometry[i])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", r.test.Name(i), err)
		}
		rows[i] = maskcsv.Row{ID: r.test.Name(i), Runs: runs}
		if rows[i].Runs != "" {
			masks++
		}
	}
	if err := r.out.predictions("test", bytes, names(r.test)); err != nil {
		return 0, err
	}
	return masks, atomicfile.Write(r.out.path("submission.csv"), func(w io.Writer) error { return maskcsv.WriteSubmission(w, rows) })
}

// encode returns the runs of a prediction on the film, "" if it is empty: preparing
// is undone as the films file knows it, and where it knows nothing the film is
// taken to be a square of FilmSize.
func (r *run) encode(prob []float32, g resize.Geometry) (string, error) {
	mask := image.NewGray(image.Rect(0, 0, r.Size, r.Size))
	for i, v := range prob {
		if v > float32(r.result.Threshold) {
			mask.Pix[i] = 255
		}
	}
	if g == (resize.Geometry{}) {
		g = resize.Geometry{FilmWidth: r.FilmSize, FilmHeight: r.FilmSize}
	}
	g.Width, g.Height = r.Size, r.Size
	film, err := g.Back(mask)
	if err != nil {
		return "", err
	}
	return rle.Encode(film, &rle.Options{Empty: rle.Blank, Kernel: r.Recipe == Kernel}), nil
}
