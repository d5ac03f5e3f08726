package report

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
)

// A RateSearch is the result of a search for a learning rate: the loss and its
// running mean at each rate. The rates ascend and are above 0.
type RateSearch struct {
	Rates, Loss, Smooth []float64
	Marks               []RateMark // rates that the search suggests
}

// A RateMark is a rate with a name, such as "steepest".
type RateMark struct {
	Name string
	Rate float64
}

// RatePlot draws a search as a PNG file, with the rates on a logarithmic axis. It
// returns an error if a rate is not above 0, or the lists differ in length.
func RatePlot(path, title string, s RateSearch) error {
	if len(s.Loss) != len(s.Rates) || len(s.Smooth) != len(s.Rates) || len(s.Rates) == 0 {
		return fmt.Errorf("report: a search with %d rates, %d losses and %d running means", len(s.Rates), len(s.Loss), len(s.Smooth))
	}
	for _, r := range s.Rates {
		if !(r > 0) || math.IsInf(r, 1) {
			return fmt.Errorf("report: a search with a rate of %v, wanted a number above 0", r)
		}
	}
	p := newPlot(title, "learning rate", "loss")
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: 0}
	addLine(p, xys(s.Rates, s.Loss), color.RGBA{179, 212, 232, 255}, 0.7)
	addLine(p, xys(s.Rates, s.Smooth), blue, 2)
	for i, m := range s.Marks {
		for j, r := range s.Rates {
			if r >= m.Rate && finite(s.Smooth[j]) {
				mark := &bestMark{x: r, y: s.Smooth[j], color: palette[(i+1)%len(palette)], cross: true}
				p.Add(mark)
				p.Legend.Add(fmt.Sprintf("%s %.2g", m.Name, m.Rate), lineStyle(mark.color, 2))
				break
			}
		}
	}
	p.Y.Min, p.Y.Max = lossRange(s.Smooth, nil, p.Y.Min, p.Y.Max)
	p.Legend.Left = true
	p.Legend.XOffs = vg.Length(8)
	return savePlot(path, oneHeight, nil, p)
}
