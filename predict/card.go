package predict

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/hcunet/hcunet/internal/words"
)

// Card returns a description of the model for people, as a page of text: notices, task,
// preparation, network, operating point, training data, versions and scores.
func (m *Model) Card() string {
	var b strings.Builder
	for _, n := range m.Notices() {
		fmt.Fprintf(&b, "%s\n", strings.ToUpper(n[:1])+n[1:])
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	if m.Name != "" {
		row("model", "%s", m.Name)
	}
	row("finds", "%s", strings.Join(m.Task.Classes[1:], ", "))
	p := m.Preparation
	shape := fmt.Sprintf("%s of %d bits, brought to %dx%d pixels (%s)", words.Count(m.Task.Channels, "channel", "channels"), p.Bits, p.Size, p.Size, p.Fit)
	if p.CLAHE {
		shape += ", contrast equalized (CLAHE)"
	}
	if p.VOI {
		shape += ", window of the DICOM file applied"
	}
	row("films", "%s", shape)
	if m.Size() != p.Size {
		row("", "then %dx%d", m.Size(), m.Size())
	}
	row("network", "%s", m.Network)
	how := "mean of " + words.Count(m.Folds, "network", "networks")
	if m.Folds == 1 {
		how = "one network"
	}
	if m.Inference.Flip {
		how += ", each over the film and its mirror image"
	}
	if m.Inference.Precision != "" {
		how += ", in " + m.Inference.Precision
	}
	row("probabilities", "%s, by %s", how, m.Task.Output)
	for i, rule := range m.Point.Rules {
		row("mask of "+m.Task.Classes[i+1], "%s", rule)
	}
	if m.Point.Argmax {
		row("", "where no other class is more probable")
	}
	t := m.Training
	from := words.Count(t.Images, "image", "images")
	if t.Patients > 0 {
		from += " of " + words.Count(t.Patients, "patient", "patients")
	}
	if t.Data != "" {
		from += ", " + t.Data
	}
	row("learned from", "%s", from)
	for i, n := range t.Positives {
		if i+1 < len(m.Task.Classes) {
			row("", "%d with %s", n, m.Task.Classes[i+1])
		}
	}
	for i, name := range slices.Sorted(maps.Keys(m.Versions)) {
		head := ""
		if i == 0 {
			head = "made with"
		}
		row(head, "%s %s", name, m.Versions[name])
	}
	if m.Digest != "" {
		row("digest", "%s", m.Digest)
	}
	w.Flush()
	for _, s := range m.Scores {
		fmt.Fprintf(&b, "\n%s on %s, %d with it", s.Class, words.Count(s.Images, "held-out image", "held-out images"), s.Positives)
		if s.Chosen != "" {
			fmt.Fprintf(&b, "; %s", s.Chosen)
		}
		b.WriteString(":\n")
		fmt.Fprintf(&b, "  Dice %.4f", s.Dice)
		if s.Level > 0 {
			fmt.Fprintf(&b, " (%.4f to %.4f with %.0f%%)", s.Low, s.High, 100*s.Level)
		}
		if s.Images > 0 {
			fmt.Fprintf(&b, "; finding nothing anywhere scores %.4f", float64(s.Images-s.Positives)/float64(s.Images))
		}
		fmt.Fprintf(&b, "\n  Dice %.4f on those with it; found on %.1f%% of them, and nothing on %.1f%% of the others\n",
			s.DicePositive, 100*s.Sensitivity, 100*s.Specificity)
	}
	return b.String()
}
