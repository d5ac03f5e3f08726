// Package report shows people what a training run does. During the run it shows a
// progress bar and a table, and writes the measured values to files (CSV, lines of
// JSON, TensorBoard events). Afterwards it draws plots and sample pictures as PNG
// files and writes one HTML page with everything. It works with numbers and images
// only, not with models.
package report

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strconv"

	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	plotfont "gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/hcunet/hcunet/internal/atomicfile"
)

// The palette is that of Okabe and Ito 2008, "Color Universal Design", which
// colour-blind readers can distinguish too.
var (
	blue       = color.RGBA{0, 114, 178, 255}
	vermillion = color.RGBA{213, 94, 0, 255}
	green      = color.RGBA{0, 158, 115, 255}
	purple     = color.RGBA{204, 121, 167, 255}
	amber      = color.RGBA{230, 159, 0, 255}
	sky        = color.RGBA{86, 180, 233, 255}
	palette    = []color.RGBA{blue, vermillion, green, purple, amber, sky}

	ink  = color.RGBA{34, 34, 34, 255}
	grey = color.RGBA{120, 120, 120, 255}
	rule = color.RGBA{225, 225, 225, 255}
)

// Pictures are narrow, so that they can be read on a telephone and on paper.
const (
	dpi       = 144 // 5.4 inches across are 778 pixels
	plotWidth = 5.4 * vg.Inch
	oneHeight = 3.5 * vg.Inch
	twoHeight = 5.4 * vg.Inch // height of two plots, one above the other
)

// A Curve is Dice against threshold: Dice[i] is the score of the pixels above
// Thresholds[i].
type Curve struct {
	Name       string // name of the fold, shown in the legend if there are several curves
	Pooled     bool   // a curve of all folds together; drawn thick and dark, above the others
	Thresholds []float64
	Dice       []float64
}

// Best returns the first threshold with the highest Dice, and that Dice. Both
// are NaN if no value is finite.
func (c Curve) Best() (threshold, dice float64) {
	threshold, dice = math.NaN(), math.NaN()
	for i := range min(len(c.Dice), len(c.Thresholds)) {
		if v := c.Dice[i]; finite(v) && !(v <= dice) {
			threshold, dice = c.Thresholds[i], v
		}
	}
	return threshold, dice
}

// DicePlot draws Dice against threshold as a PNG file. The best point of each curve is
// marked, and written in the title or, if there are several curves, below the plot. It
// panics if the slices of a curve differ in length.
func DicePlot(path, title string, curves ...Curve) error {
	p := newPlot(title, "threshold", "Dice")
	key := p.Legend
	for i, c := range curves {
		if len(c.Thresholds) != len(c.Dice) {
			panic(fmt.Errorf("report: curve %q has %d thresholds and %d scores", c.Name, len(c.Thresholds), len(c.Dice)))
		}
		col, width := palette[i%len(palette)], 1.5
		if c.Pooled {
			col, width = ink, 2.5
		}
		addLine(p, xys(c.Thresholds, c.Dice), col, width)
		t, d := c.Best()
		if !finite(d) {
			continue
		}
		label := fmt.Sprintf("Dice %.4f at %.2f", d, t)
		if len(curves) == 1 {
			p.Title.Text = joined(title, label)
		} else {
			key.Add(joined(c.Name, label), lineStyle(col, width))
		}
		p.Add(&bestMark{x: t, y: d, color: col, cross: len(curves) == 1})
	}
	p.X.Min, p.X.Max = 0, 1
	key.Left, key.XOffs, key.YOffs = true, 40, 0
	return savePlot(path, oneHeight, &key, p)
}

// A LossHistory holds the losses of a run: a training loss for each batch, and
// validation losses. ValidAt[i] is the number of batches that were trained
// before Valid[i] was measured. Values that are not finite are left out.
type LossHistory struct {
	Train   []float64
	ValidAt []int
	Valid   []float64
	Phases  []Phase
}

// A Phase is the name and the beginning of a phase of a run.
type Phase struct {
	Name  string
	Start int // number of batches that were trained before the phase
}

// LossPlot draws training and validation loss against the batch as a PNG file.
// The loss of each batch is a thin line, its running mean and the validation
// loss are thick, and phases are marked. The running mean restarts with each
// phase, as in the training loop, so at the end of an epoch it equals the number
// in the table. It panics if Valid and ValidAt differ in length.
func LossPlot(path, title string, h LossHistory) error {
	if len(h.Valid) != len(h.ValidAt) {
		panic(fmt.Errorf("report: %d validation losses at %d places", len(h.Valid), len(h.ValidAt)))
	}
	p := newPlot(title, "batch", "loss")
	batch := make([]float64, len(h.Train))
	for i := range batch {
		batch[i] = float64(i + 1)
	}
	mean := runningMean(h.Train, h.Phases)
	at := make([]float64, len(h.ValidAt))
	for i, b := range h.ValidAt {
		at[i] = float64(b)
	}
	addLine(p, xys(batch, h.Train), color.RGBA{179, 212, 232, 255}, 0.7)
	addPieces(p, batch, mean, h.Phases, blue)
	addPieces(p, at, h.Valid, h.Phases, vermillion)
	addDots(p, xys(at, h.Valid), vermillion)
	if len(h.Train) > 0 {
		p.Legend.Add("train", lineStyle(blue, 2))
	}
	if len(h.Valid) > 0 {
		p.Legend.Add("valid", lineStyle(vermillion, 2))
	}
	p.Y.Min, p.Y.Max = lossRange(mean, h.Valid, p.Y.Min, p.Y.Max)
	p.Add(phaseMarks{h.Phases, len(h.Train)})
	return savePlot(path, oneHeight, nil, p)
}

// runningMean returns fastai's smoothed loss after each batch, NaN where the loss
// is not finite. It restarts with each phase.
func runningMean(losses []float64, phases []Phase) []float64 {
	mean := make([]float64, len(losses))
	sum, weight := 0.0, 0.0
	for i, v := range losses {
		if slices.ContainsFunc(phases, func(p Phase) bool { return p.Start == i }) {
			sum, weight = 0, 0
		}
		mean[i] = math.NaN()
		if finite(v) {
			sum, weight = lossDecay*sum+(1-lossDecay)*v, lossDecay*weight+(1-lossDecay)
			mean[i] = sum / weight
		}
	}
	return mean
}

// SchedulePlot draws the learning rates (one slice per layer group, one value
// per iteration) and below them the momentum as a PNG file, with the phases
// marked.
func SchedulePlot(path, title string, rates [][]float64, momentum []float64, phases []Phase) error {
	top := newPlot(title, "", "learning rate")
	for i, r := range rates {
		col := palette[i%len(palette)]
		addLine(top, xys(count(len(r)), r), col, 2)
		if len(rates) > 1 {
			top.Legend.Add(fmt.Sprintf("group %d", i+1), lineStyle(col, 2))
		}
	}
	bottom := newPlot("", "iteration", "momentum")
	addLine(bottom, xys(count(len(momentum)), momentum), green, 2)
	iterations := len(momentum)
	top.Add(phaseMarks{phases, iterations})
	unnamed := slices.Clone(phases)
	for i := range unnamed {
		unnamed[i].Name = ""
	}
	bottom.Add(phaseMarks{unnamed, iterations})
	return savePlot(path, twoHeight, nil, top, bottom)
}

// newPlot returns a plot in the style of this package: sans serif, light grid,
// no frame.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = 10
	p.Title.TextStyle.Font = sans(13, font.WeightBold)
	p.Title.TextStyle.Color = ink
	for _, a := range []struct {
		axis  *plot.Axis
		label string
	}{{&p.X, x}, {&p.Y, y}} {
		a.axis.Label.Text = a.label
		a.axis.Label.TextStyle.Font = sans(11, font.WeightNormal)
		a.axis.Label.TextStyle.Color = ink
		a.axis.Label.Padding = 4
		a.axis.Tick.Label.Font = sans(10, font.WeightNormal)
		a.axis.Tick.Label.Color = grey
		a.axis.Tick.Length = 0
		a.axis.Tick.Marker = ticks{}
		a.axis.LineStyle.Color = grey
		a.axis.Padding = 4
	}
	p.Y.LineStyle.Width = 0
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = rule, rule
	grid.Vertical.Dashes, grid.Horizontal.Dashes = nil, nil
	p.Add(grid)
	p.Legend.Top = true
	p.Legend.Padding = 3
	p.Legend.XOffs, p.Legend.YOffs = -8, -6
	p.Legend.YPosition = draw.PosCenter
	p.Legend.TextStyle.Font = sans(10, font.WeightNormal)
	p.Legend.TextStyle.Color = ink
	return p
}

func sans(size float64, weight font.Weight) plotfont.Font {
	return plotfont.Font{Typeface: "Liberation", Variant: "Sans", Weight: weight, Size: vg.Length(size)}
}

// ticks places four to eight ticks at multiples of 1, 2 or 5 times a power of
// ten, all with the same number of decimals.
type ticks struct{}

func (ticks) Ticks(lo, hi float64) []plot.Tick {
	width := hi - lo
	if !(width > 0) || math.IsInf(width, 0) {
		return plot.DefaultTicks{}.Ticks(lo, hi)
	}
	exponent := int(math.Floor(math.Log10(width / 4)))
	step := math.Pow10(exponent)
	for _, f := range []float64{5, 2} {
		if f*math.Pow10(exponent) <= width/4 {
			step = f * math.Pow10(exponent)
			break
		}
	}
	first, last := math.Ceil(lo/step), math.Floor(hi/step)
	if step == 0 || last-first > 100 || first == first+1 {
		return plot.DefaultTicks{}.Ticks(lo, hi) // the numbers are too close together for their size
	}
	label := func(v float64) string { return strconv.FormatFloat(v, 'f', max(-exponent, 0), 64) }
	if exponent < -5 || exponent > 6 {
		label = func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
	}
	var out []plot.Tick
	for k := first; k <= last; k++ {
		out = append(out, plot.Tick{Value: k * step, Label: label(k*step + 0)}) // + 0 turns -0 into 0
	}
	return out
}

func lineStyle(c color.Color, width float64) *plotter.Line {
	return &plotter.Line{LineStyle: draw.LineStyle{Color: c, Width: vg.Length(width)}}
}

func addLine(p *plot.Plot, pts plotter.XYs, c color.Color, width float64) {
	if len(pts) > 0 {
		l := lineStyle(c, width)
		l.XYs = pts
		p.Add(l)
	}
}

// addPieces adds a line that is interrupted where a phase begins, at batch
// Start+1.
func addPieces(p *plot.Plot, x, y []float64, phases []Phase, c color.Color) {
	from := 0
	for i := range x {
		for _, ph := range phases {
			if i > from && x[i] > float64(ph.Start) && x[i-1] <= float64(ph.Start) {
				addLine(p, xys(x[from:i], y[from:i]), c, 2)
				from = i
			}
		}
	}
	addLine(p, xys(x[from:], y[from:]), c, 2)
}

// phaseMarks draws dashed lines where phases begin, with their names above.
type phaseMarks struct {
	phases []Phase
	end    int // batches
}

func (m phaseMarks) Plot(c draw.Canvas, p *plot.Plot) {
	tx, _ := p.Transforms(&c)
	dashes := draw.LineStyle{Color: grey, Width: 0.75, Dashes: []vg.Length{3, 3}}
	style := p.X.Tick.Label
	style.Font = sans(9, font.WeightNormal)
	style.Color = grey
	style.XAlign, style.YAlign = draw.XLeft, draw.YTop
	for i, ph := range m.phases {
		if x := tx(float64(ph.Start)); ph.Start > 0 && ph.Start < m.end {
			c.StrokeLine2(dashes, x, c.Min.Y, x, c.Max.Y)
		}
		end := m.end
		if i+1 < len(m.phases) {
			end = m.phases[i+1].Start
		}
		// A name that is wider than its phase would overlap the next name.
		begin := max(tx(float64(ph.Start)), c.Min.X) // batches are counted from 1
		if style.Width(ph.Name) <= tx(float64(end))-begin-6 {
			c.FillText(style, vg.Point{X: begin + 3, Y: c.Max.Y - 1}, ph.Name)
		}
	}
}

func addDots(p *plot.Plot, pts plotter.XYs, c color.Color) {
	if len(pts) > 0 {
		p.Add(&plotter.Scatter{XYs: pts, GlyphStyle: draw.GlyphStyle{Color: c, Radius: 3, Shape: draw.CircleGlyph{}}})
	}
}

// bestMark draws a dot with a ring around it, and dashed lines to both axes.
type bestMark struct {
	x, y  float64
	color color.Color
	cross bool
}

func (m *bestMark) Plot(c draw.Canvas, p *plot.Plot) {
	tx, ty := p.Transforms(&c)
	at := vg.Point{X: tx(m.x), Y: ty(m.y)}
	if m.cross {
		dashes := draw.LineStyle{Color: grey, Width: 1, Dashes: []vg.Length{4, 3}}
		c.StrokeLine2(dashes, at.X, c.Min.Y, at.X, at.Y)
		c.StrokeLine2(dashes, c.Min.X, at.Y, at.X, at.Y)
	}
	c.DrawGlyph(draw.GlyphStyle{Color: color.White, Radius: 5.5, Shape: draw.CircleGlyph{}}, at)
	c.DrawGlyph(draw.GlyphStyle{Color: m.color, Radius: 4, Shape: draw.CircleGlyph{}}, at)
}

// xys pairs x and y and leaves out points that are not finite.
func xys(x, y []float64) plotter.XYs {
	pts := make(plotter.XYs, 0, len(x))
	for i := range x {
		if finite(x[i]) && finite(y[i]) {
			pts = append(pts, plotter.XY{X: x[i], Y: y[i]})
		}
	}
	return pts
}

func count(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(i)
	}
	return x
}

// lossRange returns the range of the loss axis: the range of the running mean
// and the validation loss, widened by a quarter, but within [lo, hi]. So a few
// batches with very high loss do not flatten the curves.
func lossRange(mean, valid []float64, lo, hi float64) (float64, float64) {
	a, b := math.Inf(1), math.Inf(-1)
	for _, s := range [][]float64{mean, valid} {
		for _, v := range s {
			if finite(v) {
				a, b = min(a, v), max(b, v)
			}
		}
	}
	if a > b {
		return lo, hi
	}
	margin := (b - a) / 4
	return max(lo, a-margin), min(hi, b+margin)
}

// savePlot draws the plots below each other and saves the picture. If key is not
// nil, it is drawn at the bottom and the picture becomes higher.
func savePlot(path string, height vg.Length, key *plot.Legend, plots ...*plot.Plot) error {
	for _, p := range plots {
		if margin := 0.04 * (p.Y.Max - p.Y.Min); finite(margin) && p.Y.Max > p.Y.Min {
			p.Y.Min, p.Y.Max = p.Y.Min-margin, p.Y.Max+margin
		}
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		var strip vg.Length
		if key != nil {
			sample := draw.New(vgimg.New(plotWidth, height))
			strip = key.Rectangle(sample).Size().Y
		}
		c := vgimg.NewWith(vgimg.UseWH(plotWidth, height+strip), vgimg.UseDPI(dpi))
		page := draw.Crop(draw.New(c), 10, -14, 10, -10)
		if key != nil {
			key.Draw(draw.Crop(page, 0, 0, 0, strip-page.Size().Y))
			page = draw.Crop(page, 0, 0, strip, 0)
		}
		rows := make([][]*plot.Plot, len(plots))
		for i := range plots {
			rows[i] = plots[i : i+1]
		}
		for i, row := range plot.Align(rows, draw.Tiles{Rows: len(plots), Cols: 1, PadY: 10}, page) {
			plots[i].Draw(row[0])
		}
		_, err := vgimg.PngCanvas{Canvas: c}.WriteTo(w)
		return err
	})
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + ": " + b
}
