package report

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/hcunet/hcunet/metric"
)

// CalibrationPlot draws a reliability diagram as a PNG file. For each bin of
// probabilities it shows the share of pixels in the target; if the probabilities
// are calibrated, this share equals the probability. Below, it shows the number
// of pixels of each bin on a logarithmic scale. The expected calibration error
// is added to the title.
func CalibrationPlot(path, title string, bins []metric.Bin) error {
	top := newPlot(title, "", "share in the target")
	if e := metric.CalibrationError(bins); finite(e) {
		top.Title.Text = joined(title, fmt.Sprintf("ECE %.4f", e))
	}
	top.X.Min, top.X.Max, top.Y.Min, top.Y.Max = 0, 1, 0, 1
	diagonal := lineStyle(grey, 1)
	diagonal.Dashes = []vg.Length{4, 3}
	diagonal.XYs = plotter.XYs{{X: 0, Y: 0}, {X: 1, Y: 1}}
	top.Add(diagonal)
	mean, share := make([]float64, len(bins)), make([]float64, len(bins))
	bottom := newPlot("", "probability", "pixels")
	bottom.X.Min, bottom.X.Max = 0, 1
	bottom.Y.Min, bottom.Y.Max = 0, 1
	for i, b := range bins {
		mean[i], share[i] = b.Mean, float64(b.InTarget)/float64(b.Pixels) // NaN without pixels
		if b.Pixels > 0 {
			height := math.Log10(float64(b.Pixels)) + 0.1 // so that one pixel is visible too
			bottom.Add(&box{b.Low, b.High, height, blue})
			bottom.Y.Max = max(bottom.Y.Max, math.Ceil(height))
		}
	}
	bottom.Y.Tick.Marker = powers{}
	addLine(top, xys(mean, share), blue, 2)
	addDots(top, xys(mean, share), blue)
	return savePlot(path, twoHeight, nil, top, bottom)
}

// box is a bar that begins at the axis.
type box struct {
	low, high, height float64
	color             color.Color
}

func (b *box) Plot(c draw.Canvas, p *plot.Plot) {
	tx, ty := p.Transforms(&c)
	x0, x1 := tx(b.low)+0.5, tx(b.high)-0.5
	c.FillPolygon(b.color, []vg.Point{{X: x0, Y: ty(0)}, {X: x1, Y: ty(0)}, {X: x1, Y: ty(b.height)}, {X: x0, Y: ty(b.height)}})
}

// powers places ticks at whole powers of ten on an axis of logarithms.
type powers struct{}

func (powers) Ticks(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	for k := max(int(math.Ceil(lo)), 0); k <= int(hi); k++ {
		label := fmt.Sprint(int64(math.Pow10(k)))
		if k > 3 {
			label = "10" + superscript(k)
		}
		out = append(out, plot.Tick{Value: float64(k), Label: label})
	}
	return out
}

func superscript(k int) string {
	var out []rune
	for _, c := range fmt.Sprint(k) {
		out = append(out, []rune("⁰¹²³⁴⁵⁶⁷⁸⁹")[c-'0'])
	}
	return string(out)
}
