package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/metric"
)

// A node is an element of a page.
type node struct {
	name     string
	attr     map[string]string
	text     string // directly within it
	children []*node
}

// parse reads a page as a tree.
func parse(t *testing.T, path string) *node {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	d := xml.NewDecoder(f)
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	stack := []*node{{name: "page"}}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			require.Len(t, stack, 1, "every element ends")
			return stack[0]
		}
		require.NoError(t, err)
		top := stack[len(stack)-1]
		switch token := token.(type) {
		case xml.StartElement:
			n := &node{name: token.Name.Local, attr: map[string]string{}}
			for _, a := range token.Attr {
				n.attr[a.Name.Local] = a.Value
			}
			top.children = append(top.children, n)
			stack = append(stack, n)
		case xml.EndElement:
			require.Equal(t, top.name, token.Name.Local)
			stack = stack[:len(stack)-1]
		case xml.CharData:
			top.text += string(token)
		}
	}
}

// all returns the elements of that name below n, in order.
func (n *node) all(name string) (out []*node) {
	for _, c := range n.children {
		if c.name == name {
			out = append(out, c)
		}
		out = append(out, c.all(name)...)
	}
	return out
}

// texts returns what stands in the elements of that name.
func (n *node) texts(name string) (out []string) {
	for _, c := range n.all(name) {
		out = append(out, strings.TrimSpace(c.text))
	}
	return out
}

// section returns the section with that heading.
func (n *node) section(t *testing.T, heading string) *node {
	t.Helper()
	for _, s := range n.all("section") {
		if h := s.all("h2"); len(h) > 0 && h[0].text == heading {
			return s
		}
	}
	require.Fail(t, "no section", heading)
	return nil
}

// exampleRun is a made-up run of four folds, with all that a page can have.
func exampleRun(t *testing.T, dir string) Run {
	t.Helper()
	random := rand.New(rand.NewPCG(7, 7))
	file := func(name string) string { return filepath.Join(dir, name) }
	r := Run{Title: "Ensemble on siim-256", CasesFile: "runs/a/cases.csv", Network: "Net(\n  (encoder): ResNet34(...)\n)"}
	for i := range 120 {
		c := Case{Fold: i % 4, Name: fmt.Sprintf("1.2.276.0.7230010.3.1.4.8323329.%d.png", 10000+7*i), Patient: fmt.Sprintf("patient %d", i/2), HD95: math.NaN(), Surface: math.NaN(), Unit: "mm"}
		switch size := 200 + random.IntN(4000); {
		case i%3 > 0 && i%20 == 2:
			c.Overlap.Predicted = 50 + i
		case i%3 == 0:
			c.Overlap = metric.Overlap{Target: size, Predicted: size * 9 / 10, Both: size * (30 + random.IntN(58)) / 100}
			c.HD95 = 60 * random.Float64()
			if i == 9 || i == 33 {
				c.Overlap.Predicted, c.Overlap.Both, c.HD95 = 0, 0, math.NaN()
			}
		}
		r.Cases = append(r.Cases, c)
	}
	overlaps := make([]metric.Overlap, len(r.Cases))
	for i, c := range r.Cases {
		overlaps[i] = c.Overlap
	}
	nested := metric.Summarize(overlaps, &metric.ReportOptions{Rand: rand.New(rand.NewPCG(1, 1))})
	same := nested
	same.Dice += 0.0078
	var curves []Curve
	for i, at := range []float64{0.19, 0.24, 0.33, 0.46, 0.28} {
		c := hump(at, nested.Dice+0.02-0.01*float64(i))
		c.Name = fmt.Sprintf("fold %d", i)
		if i == 4 {
			c.Name, c.Pooled = "pooled", true
		}
		curves = append(curves, c)
	}
	require.NoError(t, DicePlot(file("dice.png"), "Dice of the held-out cases", curves...))
	var bins []metric.Bin
	for i := range 10 {
		low := float64(i) / 10
		pixels := int64(1e7 / math.Pow(5, float64(i)))
		bins = append(bins, metric.Bin{Low: low, High: low + 0.1, Mean: low + 0.05, Pixels: pixels, InTarget: int64(float64(pixels) * math.Pow(low+0.05, 1.3))})
	}
	require.NoError(t, CalibrationPlot(file("calibration.png"), "Calibration of the held-out pixels", bins))
	r.Classes = []ClassScores{{
		Nested: nested, Same: same,
		Rules: []RuleScore{
			{Name: "best threshold of each fold, mean", Rule: "above 0.305 if probabilities sum to at least 300", Nested: nested.Parts, Same: same.Parts, Used: true},
			{Name: "one threshold, pooled", Rule: "above 0.28 if probabilities sum to at least 300", Nested: nested.Parts, Same: same.Parts},
			{Name: "triplet, pooled", Rule: "above 0.3 if at least 1250 pixels are above 0.75", Nested: nested.Parts, Same: same.Parts},
		},
		Pictures: []Picture{{file("dice.png"), "Mean Dice against threshold, fold by fold and pooled."}, {file("calibration.png"), "How often a pixel is in the target, against its probability; and how many pixels have it."}},
	}}
	a, b := disc(256, 256), disc(256, 256)
	a.Caption, b.Caption = "0001.png  Dice 0.412", "0002.png  Dice 0.871"
	require.NoError(t, Samples(file("worst.png"), []Sample{a, b}, nil))
	require.NoError(t, Grid(file("batch.png"), []Sample{a, b, a, b}, 4, nil))
	r.Examples = []Picture{{file("worst.png"), "The worst cases. Green: the target; amber: the prediction."}}
	r.Batch = Picture{file("batch.png"), "Epoch 0 of fold 0."}
	for f := range 4 {
		fold := FoldRun{Name: fmt.Sprintf("Fold %d", f)}
		h := LossHistory{Phases: []Phase{{"frozen", 0}, {"full", 240}}}
		rates := make([][]float64, 3)
		var momentum []float64
		for i := range 720 {
			h.Train = append(h.Train, 0.05+0.6*math.Exp(-float64(i)/120)+0.04*random.NormFloat64()*math.Exp(-float64(i)/400))
			k, n := i, 240
			if i >= 240 {
				k, n = i-240, 480
			}
			c := 0.5 - 0.5*math.Cos(2*math.Pi*float64(k)/float64(n))
			for g, top := range []float64{1e-5, 1e-4, 1e-3} {
				rates[g] = append(rates[g], top*(0.04+0.96*c))
			}
			momentum = append(momentum, 0.95-0.1*c)
			if i%120 == 119 {
				n := i / 120
				phase := "frozen"
				if i >= 240 {
					phase = "full"
				}
				v := 0.06 + 0.5*math.Exp(-float64(i)/130)
				h.ValidAt, h.Valid = append(h.ValidAt, i+1), append(h.Valid, v)
				fold.Epochs = append(fold.Epochs, epoch(phase, n, v-0.01, v, 0.84-v/4, time.Duration(83+n)*time.Second))
			}
		}
		loss, schedule := file(fmt.Sprintf("loss%d.png", f)), file(fmt.Sprintf("rates%d.png", f))
		require.NoError(t, LossPlot(loss, fmt.Sprintf("Fold %d, loss", f), h))
		require.NoError(t, SchedulePlot(schedule, fmt.Sprintf("Fold %d", f), rates, momentum, h.Phases))
		fold.Pictures = []Picture{{Path: loss}, {Path: schedule}}
		r.Folds = append(r.Folds, fold)
	}
	r.Facts = [][2]string{{"command", "kfold -data siim-256 -out runs/a -arch resnet34 -weights resnet34-333f7ec4 -epochs 2,4 -rate 1e-3 -batch 16 -accumulate 4"}, {"seed", "2019"}, {"size", "256"}, {"program", "github.com/hcunet/hcunet v0.2.0"}, {"libtorch", "1.13.1"}}
	return r
}

func TestRunPage(t *testing.T) {
	dir := t.TempDir()
	r := exampleRun(t, dir)
	path := out(t, "report.html")
	require.NoError(t, WritePage(path, NewPage(r)))
	page := parse(t, path)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	text := regexp.MustCompile(`src="data:image/png;base64,[^"]*"`).ReplaceAllString(string(b), "")
	for _, no := range []string{"http", "//", "ZgotmplZ", "<script", "<link", "NaN"} {
		assert.NotContains(t, text, no, "the page asks nobody for anything, and nothing is unsafe")
	}

	// It says on how many cases the scores are computed, and shows the unbiased
	// one first.
	require.Equal(t, []string{"120 held-out cases · 40 with a target, 80 without · 60 patients · 4 folds"}, page.all("header")[0].texts("p"))
	first := page.all("section")[0]
	c := r.Classes[0]
	assert.Equal(t, []string{four(c.Nested.Dice), four(c.Nested.IoU), "0.6667"}, first.texts("b"))
	assert.Contains(t, first.texts("small")[0], "thresholds chosen on the other folds; 95 % interval ")
	assert.Contains(t, strings.Join(first.texts("p"), " "), four(c.Same.Dice)+", 0.0078 more")
	assert.Contains(t, first.texts("p")[0], fmt.Sprintf("0.6667 × %s + 0.3333 × %s", four(c.Nested.Specificity), four(c.Nested.DicePositive)))
	assert.Equal(t, []string{"Ways to choose the rule that makes a mask", "Empty and non-empty"}, first.texts("caption"))
	found := Confuse(r.Cases, "")
	confusion := first.all("table")[1]
	assert.Equal(t, []string{"nothing there", fmt.Sprint(found.BothEmpty), fmt.Sprint(found.FalseAlarm), "something there", fmt.Sprint(found.Missed), fmt.Sprint(found.Found)}, confusion.texts("td"))

	cases := page.section(t, "Cases")
	assert.Len(t, cases.all("tr"), 121)
	assert.Contains(t, cases.texts("p")[0], "cases.csv has every row")
	assert.NotContains(t, cases.texts("p")[0], "runs/")
	assert.Equal(t, "n", cases.all("td")[5].attr["class"], "numbers are set right")
	assert.Equal(t, "w", cases.all("td")[0].attr["class"], "long names may take two lines")
	assert.Empty(t, cases.all("td")[1].attr["class"])

	last := page.section(t, "Training")
	assert.Equal(t, []string{"fold", "phase", "epoch", "train_loss", "valid_loss", "dice", "time"}, last.texts("th"))
	assert.Len(t, last.all("tr"), 5)
	fold := page.section(t, "Fold 2")
	assert.Equal(t, []string{"frozen", "full"}, fold.texts("caption"))
	assert.Len(t, fold.all("details"), 1)
	for _, m := range page.all("img") {
		assert.True(t, strings.HasPrefix(m.attr["src"], "data:image/png;base64,iVBORw0KGgo"))
		assert.NotEmpty(t, m.attr["alt"])
	}
	require.Len(t, page.all("img"), 2+1+1+2*4)
	assert.Equal(t, []string{r.Network}, page.section(t, "Network").texts("pre"))
	assert.Equal(t, "resnet34", strings.Fields(page.section(t, "How it was made").texts("td")[1])[6])
}

// Parts without data are left out: shares of no cases, and the nested score of a
// single fold.
func TestPageWithoutParts(t *testing.T) {
	all := metric.Summarize([]metric.Overlap{{Both: 1, Predicted: 1, Target: 1}, {Both: 1, Predicted: 2, Target: 2}}, nil)
	none := metric.Summarize([]metric.Overlap{{}, {Predicted: 1}}, nil)
	for _, c := range []struct {
		name     string
		scores   ClassScores
		want, no string
	}{
		{"no negatives", ClassScores{Nested: all}, "Every one of the 2 cases has a target.", "0.0000"},
		{"no negatives, at the top", ClassScores{Nested: all}, "2 held-out cases · all with a target<", "without"},
		{"no positives, at the top", ClassScores{Nested: none}, "2 held-out cases · none with a target<", "0 with a"},
		{"no positives", ClassScores{Nested: none}, "the share on which nothing is predicted, 0.5000 of 2 cases.", "0.0000"},
		{"one fold", ClassScores{Same: all}, "thresholds chosen on these same cases, so it is too high", "the other folds"},
		{"no cases", ClassScores{}, "No case was scored.", "NaN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "r.html")
			require.NoError(t, WritePage(path, NewPage(Run{Title: "x", Classes: []ClassScores{c.scores}})))
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Contains(t, string(b), c.want)
			assert.NotContains(t, string(b), c.no)
			assert.NotContains(t, string(b), "<table", "there is none to show")
			parse(t, path)
		})
	}
	path := filepath.Join(t.TempDir(), "r.html")
	require.NoError(t, WritePage(path, NewPage(Run{})))
	assert.Empty(t, parse(t, path).all("section"))

	// Several classes: a section each.
	two := Run{Classes: []ClassScores{{Name: "right lung", Nested: all}, {Name: "heart", Nested: all}}}
	require.NoError(t, WritePage(path, NewPage(two)))
	assert.Equal(t, []string{"right lung", "heart"}, parse(t, path).texts("h2"))
}

func TestWritePage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r.html")
	require.NoError(t, WritePage(path, Page{
		Title: "Run <1>",
		Sections: []Section{
			{Heading: "Scores", Text: "An all-empty prediction & co.\n\nSecond paragraph.",
				Tables: []Table{{Header: []string{"fold", "Dice"}, Rows: [][]string{{"a", "0.8412"}, {"<b>", "0.9", "more"}, {}}}}},
			{Heading: "Log", Log: "epoch  train_loss\n0      0.5\n"},
		},
	}))
	page := parse(t, path)
	assert.Equal(t, []string{"Run <1>"}, page.texts("h1"))
	assert.Equal(t, []string{"Run <1>"}, page.texts("title"))
	assert.Equal(t, []string{"An all-empty prediction & co.", "Second paragraph."}, page.texts("p"))
	assert.Equal(t, []string{"a", "0.8412", "<b>", "0.9", "more"}, page.texts("td"))
	assert.Equal(t, []string{"epoch  train_loss\n0      0.5"}, page.texts("pre"))

	other := filepath.Join(dir, "x.html")
	require.ErrorIs(t, WritePage(other, Page{Sections: []Section{{Images: []Picture{{Path: filepath.Join(dir, "absent.png")}}}}}), os.ErrNotExist)
	text := filepath.Join(dir, "no.png")
	require.NoError(t, os.WriteFile(text, []byte("no picture"), 0o666))
	require.ErrorContains(t, WritePage(other, Page{Sections: []Section{{Images: []Picture{{Path: text}}}}}), "no.png is not a PNG")
	require.NoFileExists(t, other)
}

func TestColumns(t *testing.T) {
	for text, number := range map[string]bool{
		"0.8412": true, "12": true, "–": true, "-": true, "": true, "-0.5": true, "1e-05": true, "12.5 mm": true, "01:23": true, "1:01:01": true, "0.81 to 0.85": true, "50 %": true,
		"a": false, "0001.png": false, "P7": false, "fold 0": false, "1.2.840 x": false, "resnet34": false,
	} {
		assert.Equal(t, number, columns(Table{Rows: [][]string{{text}}})[0] == "n", "%q", text)
	}
	assert.Equal(t, []string{"", ""}, columns(Table{Header: []string{"a", "b"}}))
}

// A table's cases, curves and rules, as the page has them: two folds of two
// images of four pixels.
func TestFromTable(t *testing.T) {
	table, err := metric.NewTable([]string{"a", "b"}, nil)
	require.NoError(t, err)
	probs := []float32{0.9, 0.6, 0.2, 0.1}
	for i := range 4 {
		c := metric.Case{Fold: i / 2, Index: i, Name: fmt.Sprint("film", i), Group: "P"}
		target := []uint8{1, 1, 2, 0}
		if i == 3 {
			target = make([]uint8, 4)
		}
		require.NoError(t, table.Add(c, [][]float32{probs, probs}, target))
	}
	thresholds := table.Thresholds() // 49 is 0.5, 14 is 0.15
	rule := func(fold int) metric.Rule { return metric.ThresholdRule(thresholds[[]int{49, 14}[fold]], 0) }
	cases, err := CasesOf(table, 1, rule)
	require.NoError(t, err)
	require.Len(t, cases, 4)
	for i, want := range []metric.Overlap{{Both: 2, Predicted: 2, Target: 2}, {Both: 2, Predicted: 2, Target: 2}, {Both: 2, Predicted: 3, Target: 2}, {Predicted: 3}} {
		c := cases[i]
		assert.Equal(t, want, c.Overlap)
		assert.Equal(t, []any{i / 2, fmt.Sprint("film", i), "P", "a", "px"}, []any{c.Fold, c.Name, c.Patient, c.Class, c.Unit})
		assert.Equal(t, thresholds[[]int{49, 14}[i/2]], c.Threshold)
		assert.True(t, math.IsNaN(c.HD95) && math.IsNaN(c.Surface), "a table knows no distances")
	}
	_, err = CasesOf(table, 3, rule)
	require.Error(t, err)

	curves, err := CurvesOf(table, 1, 0)
	require.NoError(t, err)
	require.Len(t, curves, 3)
	assert.Equal(t, []string{"fold 0", "fold 1", "pooled"}, []string{curves[0].Name, curves[1].Name, curves[2].Name})
	assert.Equal(t, []bool{false, false, true}, []bool{curves[0].Pooled, curves[1].Pooled, curves[2].Pooled})
	assert.Equal(t, 1.0, curves[0].Dice[49])
	assert.Equal(t, 0.5, curves[1].Dice[49], "of two, the second an alarm")
	assert.Equal(t, 0.75, curves[2].Dice[49])
	_, err = CurvesOf(table, 0, 0)
	require.Error(t, err)

	choices, err := table.Search(1, nil)
	require.NoError(t, err)
	rows := RulesOf(choices, &choices.Pooled)
	assert.Equal(t, []bool{false, true, false}, []bool{rows[0].Used, rows[1].Used, rows[2].Used})
	assert.Equal(t, choices.Triplet.Nested, rows[2].Nested)
	assert.Equal(t, choices.Triplet.Rule.String(), rows[2].Rule)
}
