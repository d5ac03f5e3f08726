package data

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/hcunet/hcunet/data/internal/text"
	"github.com/hcunet/hcunet/internal/words"
)

// A Task says what the images and masks of a data set show. It is part of the
// description of a model, in JSON.
type Task struct {
	// Classes are the names of the classes, the background first; at least two and
	// at most 255. The number of a class is its index here.
	Classes []string `json:"classes"`

	Channels int    `json:"channels"` // channels of an image: 1 for grey, 3 for colours
	Output   Output `json:"output"`

	Masks MaskRule `json:"masks"`

	// Ignore says that the value 255 of a mask marks pixels of unknown class. They
	// count neither in training nor in scores. A mask of two classes then has the
	// values 0, 1 and 255.
	Ignore bool `json:"ignore,omitempty"`

	// NoMirror says that mirroring changes the classes, for example if the left and
	// the right lung are different classes. Then neither training nor prediction may
	// mirror images.
	NoMirror bool `json:"no_mirror,omitempty"`
}

// Ignored is the value of a target for a pixel of unknown class, if Task.Ignore
// is set.
const Ignored = 255

const maxClasses = 255

// Binary returns the task of separating one class from the background in grey
// images.
func Binary(name string) Task {
	return Task{Classes: []string{"background", name}, Channels: 1}
}

// Output says how the scores of the classes become probabilities.
type Output int

const (
	Softmax Output = iota // a pixel has exactly one class: softmax over all classes
	Sigmoid               // classes are independent: a sigmoid for each class but the background
)

// MaskRule says how the values of a mask file become classes.
type MaskRule int

const (
	// Exact takes each value as the number of a class. With two classes, 255 is
	// also accepted for class 1. Any other value is an error.
	Exact MaskRule = iota

	// WhiteOnly is the notebook's rule, for two classes: 255 is class 1, and
	// every other value is background, such as the grey edge that resizing
	// makes.
	WhiteOnly
)

var (
	outputWords = words.Choice[Output]{What: "output", Words: []string{"softmax", "sigmoid"}}
	maskWords   = words.Choice[MaskRule]{What: "mask rule", Words: []string{"exact", "white_only"}}
)

// String returns "softmax" or "sigmoid".
func (o Output) String() string { return outputWords.Word(o) }

// MarshalText implements encoding.TextMarshaler.
func (o Output) MarshalText() ([]byte, error) { return outputWords.Marshal(o) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Output) UnmarshalText(b []byte) (err error) { *o, err = outputWords.Parse(b); return err }

// String returns "exact" or "white_only".
func (m MaskRule) String() string { return maskWords.Word(m) }

// MarshalText implements encoding.TextMarshaler.
func (m MaskRule) MarshalText() ([]byte, error) { return maskWords.Marshal(m) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MaskRule) UnmarshalText(b []byte) (err error) { *m, err = maskWords.Parse(b); return err }

// Check returns an error if the task is not valid.
func (t Task) Check() error {
	if n := len(t.Classes); n < 2 || n > maxClasses {
		return fmt.Errorf("data: a task of %d classes; wanted 2 to %d, the background being the first", n, maxClasses)
	}
	for i, name := range t.Classes {
		switch {
		case name == "" || name != strings.TrimSpace(name) || strings.ContainsFunc(name, unicode.IsControl):
			return fmt.Errorf("data: class %d has the name %q; wanted text without spaces around it or control characters", i, name)
		case slices.Index(t.Classes, name) < i:
			return fmt.Errorf("data: classes %d and %d are both called %s", slices.Index(t.Classes, name), i, name)
		}
	}
	switch {
	case t.Channels < 1 || t.Channels > 1<<10:
		return fmt.Errorf("data: a task of images with %d channels; wanted 1 to %d", t.Channels, 1<<10)
	case t.Masks == WhiteOnly && (len(t.Classes) != 2 || t.Ignore):
		return fmt.Errorf("data: mask rule %s with %d classes, ignore %t; it needs two classes and no ignored pixels", t.Masks, len(t.Classes), t.Ignore)
	}
	if _, err := t.Output.MarshalText(); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if _, err := t.Masks.MarshalText(); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}

// Outputs returns the number of scores of a network for each pixel: one per
// class, or with Sigmoid one per class but the background.
func (t Task) Outputs() int {
	if t.Output == Sigmoid {
		return len(t.Classes) - 1
	}
	return len(t.Classes)
}

// Targets turns the values of a mask file into class numbers, in place. If the task
// does not allow some values, it returns an error that names them and changes
// nothing.
func (t Task) Targets(mask []uint8) error {
	var seen valueSet
	for _, v := range mask {
		seen[v] = true
	}
	return t.targets(mask, &seen)
}

func (t Task) targets(mask []uint8, seen *valueSet) error {
	if err := t.checkValues(seen); err != nil {
		return err
	}
	switch {
	case t.Masks == WhiteOnly:
		for i, v := range mask {
			mask[i] = v / 255
		}
	case len(t.Classes) == 2 && !t.Ignore && seen[255]:
		for i := range mask {
			mask[i] &= 1
		}
	}
	return nil
}

// checkValues returns an error if the task does not allow one of these values of
// a mask file.
func (t Task) checkValues(seen *valueSet) error {
	if t.Masks == WhiteOnly {
		return nil
	}
	n := len(t.Classes)
	var known valueSet
	for v := range n {
		known[v] = true
	}
	wanted := fmt.Sprintf("0 to %d", n-1)
	switch {
	case n == 2 && !t.Ignore:
		wanted = "0 and 255, or 0 and 1"
		if seen[255] {
			known[1], known[255] = false, true
		}
	case t.Ignore:
		wanted += " and 255"
		known[Ignored] = true
	}
	for v := range seen {
		if seen[v] && !known[v] {
			remedy := ""
			if n == 2 && seen[255] {
				remedy = "; prepare the masks again, or, if the grey values are edges made by resizing, count only 255 with the mask rule white_only"
			}
			return fmt.Errorf("it has the values %s; a mask of %s has %s%s", seen, words.Some(t.Classes, 3), wanted, remedy)
		}
	}
	return nil
}

// Values turns class numbers into the values of a mask file, in place. With two
// classes they become 0 and 255, which any program can show.
func (t Task) Values(targets []uint8) {
	if len(t.Classes) != 2 || t.Ignore {
		return
	}
	for i, v := range targets {
		targets[i] = 255 * v
	}
}

// A valueSet is the set of values in a mask.
type valueSet [256]bool

// String returns the values as "0, 64, 200-255".
func (s *valueSet) String() string { return strings.ReplaceAll(s.encode(), " ", ", ") }

// encode returns the values as "0 64 200-255".
func (s *valueSet) encode() string {
	var b strings.Builder
	for v := 0; v < len(s); v++ {
		if !s[v] {
			continue
		}
		last := v
		for last+1 < len(s) && s[last+1] {
			last++
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		switch {
		case last == v:
			fmt.Fprint(&b, v)
		case last == v+1:
			fmt.Fprint(&b, v, " ", last)
		default:
			fmt.Fprintf(&b, "%d-%d", v, last)
		}
		v = last
	}
	return b.String()
}

// decodeValues is the inverse of encode. ok is false if text is something else.
func decodeValues(text string) (s valueSet, ok bool) {
	for _, f := range strings.Fields(text) {
		var first, last int
		if n, err := fmt.Sscanf(f, "%d-%d", &first, &last); n == 1 {
			last = first
		} else if err != nil {
			return s, false
		}
		if first < 0 || last >= len(s) {
			return s, false
		}
		for v := first; v <= last; v++ {
			s[v] = true
		}
	}
	return s, s.encode() == text
}

// ReadClasses reads the names of classes from a text file, one per line, the
// background first. Empty lines are ignored.
func ReadClasses(path string) ([]string, error) {
	f, err := text.Open(path)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	var names []string
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(names) <= maxClasses {
		if name := strings.TrimSpace(lines.Text()); name != "" {
			names = append(names, name)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("data: %s: %w", path, err)
	}
	t := Task{Classes: names, Channels: 1}
	if err := t.Check(); err != nil {
		return nil, fmt.Errorf("data: %s: %s", path, strings.TrimPrefix(err.Error(), "data: "))
	}
	return names, nil
}
