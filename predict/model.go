package predict

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/metric"
)

// A Model describes a trained model, without its weights. It can be written to JSON and
// read back.
type Model struct {
	Name        string           `json:"name"` // for people; may be empty
	Task        data.Task        `json:"task"`
	Preparation data.Preparation `json:"preparation"`

	// Network describes the network to the backends: a network.Config as JSON. This
	// package does not read it.
	Network json.RawMessage `json:"network"`

	Folds     int            `json:"folds"` // number of networks whose probabilities are averaged, 1 to 1000
	Inference Inference      `json:"inference"`
	Point     OperatingPoint `json:"operating_point"`

	Scores   []Score  `json:"scores"` // on held-out images, one for each class but the background
	Training Training `json:"training"`

	Versions map[string]string `json:"versions"` // of the programs that made the model, by name

	Digest string `json:"-"` // SHA-256 of the file that the model was read from, in 64 hexadecimal digits; "" for none
}

// An Inference says how probabilities are computed for a prepared image.
type Inference struct {
	Input Input `json:"input"`

	// Size is the width and height of the network's images in pixels, 8 to 8192.
	// Prepared images are resized to it as feed.Loader does; 0 means Preparation.Size.
	Size int `json:"size,omitempty"`

	// Precision is the number type in which the scores were measured, such as bfloat16;
	// "" means float32. It is only for people to read: the backend chooses its own.
	Precision string `json:"precision,omitempty"`

	// Flip takes the mean over the probabilities of an image and of its mirror image,
	// mirrored back. It must be false if mirroring changes the classes, such as a left
	// and a right lung (Task.NoMirror).
	Flip bool `json:"flip"`
}

// Size returns the width and height of the network's images in pixels.
func (m *Model) Size() int {
	if m.Inference.Size != 0 {
		return m.Inference.Size
	}
	return m.Preparation.Size
}

// An Input is the normalization of a network's input: for values x in [0, 1] of an image,
// the network gets (x - Mean)/Std for each channel. The single channel of a grey image is
// repeated for each element of Mean. The zero Input changes nothing.
type Input struct {
	Mean data.Values `json:"mean,omitempty"`
	Std  data.Values `json:"std,omitempty"`
}

// Channels returns the number of the network's input channels for images with the given
// number of channels.
func (in Input) Channels(image int) int {
	if len(in.Mean) == 0 {
		return image
	}
	return len(in.Mean)
}

// A Score is the quality of a model for a class, measured on images that its networks
// were not trained on.
type Score struct {
	Class string `json:"class"`

	// Chosen says in words on which images the operating point was chosen. Only a score
	// on other images is an unbiased estimate.
	Chosen string `json:"chosen"`

	Dice float64 `json:"dice"` // mean over all images; an image without the class scores 1 if nothing is found, otherwise 0

	// Low and High are the bounds of a confidence interval of the mean Dice, whose level
	// is Level, such as 0.95; Level 0 means that the interval was not computed.
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Level float64 `json:"level"`

	Images       int     `json:"images"`
	Positives    int     `json:"positives"`     // number of images with the class
	DicePositive float64 `json:"dice_positive"` // mean Dice over the positives
	Sensitivity  float64 `json:"sensitivity"`   // share of the positives on which anything is found
	Specificity  float64 `json:"specificity"`   // share of the other images on which nothing is found
}

// NewScore returns the score of a class from its report.
func NewScore(class string, r metric.Report) Score {
	return Score{
		Class: class, Chosen: r.Chosen.String(), Dice: r.Dice,
		Low: r.Interval.Low, High: r.Interval.High, Level: r.Interval.Level,
		Images: r.Images(), Positives: r.Positives, DicePositive: r.DicePositive,
		Sensitivity: r.Sensitivity, Specificity: r.Specificity,
	}
}

// Training describes the images that a model was trained on.
type Training struct {
	Data      string `json:"data"` // for people, such as a folder's name; may be empty
	Images    int    `json:"images"`
	Positives []int  `json:"positives"` // number of images with each class but the background
	Patients  int    `json:"patients"`  // 0 if it is not known
	Names     string `json:"names"`     // NamesDigest of the images' names
	Phantoms  bool   `json:"phantoms"`  // whether the images are drawings of a program, not films
}

// NamesDigest returns a SHA-256 of names, as 64 hexadecimal digits. It does not depend on
// their order.
func NamesDigest(names []string) string {
	h := sha256.New()
	for _, n := range slices.Sorted(slices.Values(names)) {
		fmt.Fprintf(h, "%d:%s", len(n), n)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Versions returns the versions of Go ("go") and, where it is known, of this library
// ("hcunet") in this program. The caller may add others to the map.
func Versions() map[string]string {
	v := map[string]string{"go": strings.TrimPrefix(runtime.Version(), "go")}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == "github.com/hcunet/hcunet" && m.Version != "" {
				v["hcunet"] = m.Version
			}
		}
	}
	return v
}

// Notices returns the notices that must be shown with every result of the model.
func (m *Model) Notices() []string {
	if m.Training.Phantoms {
		return []string{Notice, PhantomNotice}
	}
	return []string{Notice}
}

// Check returns an error if a part of the description is missing or impossible, or if two
// parts do not fit together.
func (m *Model) Check() error {
	if err := m.Task.Check(); err != nil {
		return fmt.Errorf("predict: task: %w", err)
	}
	if err := m.Preparation.Check(m.Task); err != nil {
		return fmt.Errorf("predict: preparation: %w", err)
	}
	network := bytes.TrimSpace(m.Network)
	switch {
	case len(network) == 0 || network[0] != '{' || !json.Valid(network):
		return errors.New("predict: network: wanted a JSON object that describes it")
	case m.Task.NoMirror && m.Inference.Flip:
		return errors.New("predict: inference: the mean over mirror images, but the task says that a mirror image has other classes; set flip to false")
	case m.Inference.Size != 0 && (m.Inference.Size < 8 || m.Inference.Size > 1<<13):
		return fmt.Errorf("predict: inference: size %d; wanted 8 to %d pixels, or none for that of the preparation", m.Inference.Size, 1<<13)
	case m.Folds < 1 || m.Folds > maxFolds:
		return fmt.Errorf("predict: %d folds; wanted 1 to %d", m.Folds, maxFolds)
	}
	if err := m.Inference.Input.check(m.Task.Channels); err != nil {
		return err
	}
	return m.Point.Check(m.Task)
}

const maxFolds = 1000

func (in Input) check(image int) error {
	if len(in.Mean) != len(in.Std) {
		return fmt.Errorf("predict: input: %d means and %d standard deviations", len(in.Mean), len(in.Std))
	}
	if n := len(in.Mean); n > 0 && n != image && image != 1 {
		return fmt.Errorf("predict: input: %d means for images of %d channels; wanted one for each", n, image)
	}
	for c := range in.Mean {
		if math.IsNaN(in.Mean[c]) || math.IsInf(in.Mean[c], 0) || !(in.Std[c] > 0) || math.IsInf(in.Std[c], 0) {
			return fmt.Errorf("predict: input: mean %v and standard deviation %v; wanted a number and a positive one", in.Mean[c], in.Std[c])
		}
	}
	return nil
}
