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

// A Model is what is to be known of a trained model apart from its weights. It goes
// to JSON and back.
type Model struct {
	Name        string           `json:"name"` // for people; may be empty
	Task        data.Task        `json:"task"`
	Preparation data.Preparation `json:"preparation"`

	// Network describes the network to the backends: the JSON of a network.Config. Here
	// nobody looks into it.
	Network json.RawMessage `json:"network"`

	Folds     int            `json:"folds"` // networks whose probabilities are averaged
	Inference Inference      `json:"inference"`
	Point     OperatingPoint `json:"operating_point"`

	Scores   []Score  `json:"scores"` // on held-out images, one a class
	Training Training `json:"training"`

	Versions map[string]string `json:"versions"` // of the programs that made it

	Digest string `json:"-"` // of the file that it was read from, SHA-256 in 64 hexadecimal digits; "" for none
}

// An Inference says how probabilities are computed for a prepared image.
type Inference struct {
	Input Input `json:"input"`

	// Size is the width and height of the network's images, to which prepared ones are
	// brought as a feed.Loader does it; 0 means Preparation.Size.
	Size int `json:"size,omitempty"`

	// Precision is the number type in which the scores were measured, such as bfloat16;
	// "" means float32. It is for people: a backend has its own choice.
	Precision string `json:"precision,omitempty"`

	// Flip takes the mean over an image and its mirror image, turned back. Where
	// classes mirror into one another, as a left and a right lung do, it is wrong.
	Flip bool `json:"flip"`
}

// Size returns the width and height of the network's images.
func (m *Model) Size() int {
	if m.Inference.Size != 0 {
		return m.Inference.Size
	}
	return m.Preparation.Size
}

// An Input is what a network is given for values in [0, 1]: (x - Mean)/Std for each
// channel. An image of one channel is spread over as many as Mean has. The zero
// Input changes nothing.
type Input struct {
	Mean data.Values `json:"mean,omitempty"`
	Std  data.Values `json:"std,omitempty"`
}

// Channels returns the network's channels for images of a number of them.
func (in Input) Channels(image int) int {
	if len(in.Mean) == 0 {
		return image
	}
	return len(in.Mean)
}

// A Score is what a model is worth for a class on images that its networks had not
// learned from.
type Score struct {
	Class string `json:"class"`

	// Chosen says in words on which images the operating point was chosen: only on
	// others is the score an honest estimate.
	Chosen string `json:"chosen"`

	Dice  float64 `json:"dice"` // mean over all images; an image without the class scores 1 if nothing is found, otherwise 0
	Low   float64 `json:"low"`  // bounds of the mean Dice of as many other such images,
	High  float64 `json:"high"`
	Level float64 `json:"level"` // with this probability; 0 means that they were not computed

	Images       int     `json:"images"`
	Positives    int     `json:"positives"` // images with the class
	DicePositive float64 `json:"dice_positive"`
	Sensitivity  float64 `json:"sensitivity"` // share of the positives on which anything is found
	Specificity  float64 `json:"specificity"` // share of the others on which nothing is
}

// NewScore returns the score that a report holds.
func NewScore(class string, r metric.Report) Score {
	return Score{
		Class: class, Chosen: r.Chosen.String(), Dice: r.Dice,
		Low: r.Interval.Low, High: r.Interval.High, Level: r.Interval.Level,
		Images: r.Images(), Positives: r.Positives, DicePositive: r.DicePositive,
		Sensitivity: r.Sensitivity, Specificity: r.Specificity,
	}
}

// Training says what a model has learned from.
type Training struct {
	Data      string `json:"data"` // for people, such as a folder's name; may be empty
	Images    int    `json:"images"`
	Positives []int  `json:"positives"` // images with each class but the background
	Patients  int    `json:"patients"`  // 0 where they are not known
	Names     string `json:"names"`     // NamesDigest of the images
	Phantoms  bool   `json:"phantoms"`  // drawings of a program, not films
}

// NamesDigest returns a SHA-256, as 64 hexadecimal digits, that is the same for the
// same names in any order.
func NamesDigest(names []string) string {
	h := sha256.New()
	for _, n := range slices.Sorted(slices.Values(names)) {
		fmt.Fprintf(h, "%d:%s", len(n), n)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Versions returns those of this library and of Go in this program; others may be
// added.
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

// Notices returns what must stand beside every result of the model.
func (m *Model) Notices() []string {
	if m.Training.Phantoms {
		return []string{Notice, PhantomNotice}
	}
	return []string{Notice}
}

// Check returns an error for the first thing that is missing or cannot be.
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
