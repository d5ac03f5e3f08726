package report

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// out is where a picture goes: a temporary folder, or the one that
// HCUNET_REPORT_OUT names, to look at them.
func out(t *testing.T, name string) string {
	dir := os.Getenv("HCUNET_REPORT_OUT")
	if dir == "" {
		dir = t.TempDir()
	}
	return filepath.Join(dir, name)
}

func decode(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	m, err := png.Decode(f)
	require.NoError(t, err)
	return m
}

// has says whether m holds a pixel of exactly that colour.
func has(m image.Image, want color.RGBA) bool {
	b := m.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			if color.RGBAModel.Convert(m.At(x, y)) == want {
				return true
			}
		}
	}
	return false
}

// hump is a curve like those of a trained fold: steep, flat, falling.
func hump(peak, best float64) Curve {
	var c Curve
	for i := range 99 {
		t := float64(i+1) / 100
		c.Thresholds = append(c.Thresholds, t)
		c.Dice = append(c.Dice, best-0.35*math.Pow(math.Abs(t-peak), 1.5)-0.2*math.Exp(-40*t))
	}
	return c
}

func TestBest(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name            string
		curve           Curve
		threshold, dice float64
	}{
		{"the first of equals", Curve{"", []float64{0.1, 0.2, 0.3}, []float64{0.5, 0.7, 0.7}}, 0.2, 0.7},
		{"NaN is never best", Curve{"", []float64{0.1, 0.2, 0.3}, []float64{nan, -1, nan}}, 0.2, -1},
		{"nothing", Curve{}, nan, nan},
	} {
		t.Run(c.name, func(t *testing.T) {
			gotT, gotD := c.curve.Best()
			assert.Equal(t, math.Float64bits(c.threshold), math.Float64bits(gotT))
			assert.Equal(t, math.Float64bits(c.dice), math.Float64bits(gotD))
		})
	}
}

func TestDicePlot(t *testing.T) {
	path := out(t, "dice.png")
	require.NoError(t, DicePlot(path, "fold 0", hump(0.19, 0.8412)))
	m := decode(t, path)
	assert.Equal(t, image.Pt(1080, 605), m.Bounds().Size())
	assert.True(t, has(m, blue), "the curve")
	assert.False(t, has(m, vermillion), "a second curve")

	path = out(t, "dice-folds.png")
	var folds []Curve
	for i, at := range []float64{0.19, 0.14, 0.33, 0.56} {
		c := hump(at, 0.84-0.01*float64(i))
		c.Name = "fold " + string(rune('0'+i))
		folds = append(folds, c)
	}
	require.NoError(t, DicePlot(path, "out of fold", folds...))
	assert.True(t, has(decode(t, path), vermillion), "the second curve")
}

func TestLossPlot(t *testing.T) {
	var h LossHistory
	for i := range 600 {
		noise := 0.03 * math.Sin(float64(i*i))
		h.Train = append(h.Train, 0.08+0.6*math.Exp(-float64(i)/60)+noise)
		if i%100 == 99 {
			h.ValidAt = append(h.ValidAt, i+1)
			h.Valid = append(h.Valid, 0.09+0.5*math.Exp(-float64(i)/60))
		}
	}
	h.Train[300], h.Train[301], h.Train[302] = math.NaN(), math.Inf(1), 9
	path := out(t, "loss.png")
	require.NoError(t, LossPlot(path, "fold 0: loss", h))
	m := decode(t, path)
	assert.True(t, has(m, blue), "train")
	assert.True(t, has(m, vermillion), "valid")
}

func TestSchedulePlot(t *testing.T) {
	const n, peak = 1000, 300
	rates := make([][]float64, 3)
	var mom []float64
	for i := range n {
		up := float64(i) < peak
		k := float64(i) / peak
		if !up {
			k = float64(i-peak) / (n - peak)
		}
		c := (1 - math.Cos(math.Pi*k)) / 2
		for g, top := range []float64{1.25e-5, 7.9e-5, 5e-4} {
			if up {
				rates[g] = append(rates[g], top/25+(top-top/25)*c)
			} else {
				rates[g] = append(rates[g], top*(1-c))
			}
		}
		if up {
			mom = append(mom, 0.95-0.1*c)
		} else {
			mom = append(mom, 0.85+0.1*c)
		}
	}
	path := out(t, "schedule.png")
	require.NoError(t, SchedulePlot(path, "one cycle", rates, mom))
	assert.Equal(t, image.Pt(1440, 547), decode(t, path).Bounds().Size())
}

// A run that measured nothing, or only NaN, still gets its pictures.
func TestPlotsOfNothing(t *testing.T) {
	dir := t.TempDir()
	nan := math.NaN()
	for _, err := range []error{
		DicePlot(filepath.Join(dir, "a.png"), "", Curve{}),
		DicePlot(filepath.Join(dir, "b.png"), "t", Curve{"", []float64{0.5}, []float64{nan}}, Curve{"", []float64{0.5}, []float64{1}}),
		LossPlot(filepath.Join(dir, "c.png"), "t", LossHistory{}),
		LossPlot(filepath.Join(dir, "d.png"), "t", LossHistory{Train: []float64{nan, math.Inf(1)}, ValidAt: []int{1}, Valid: []float64{nan}}),
		LossPlot(filepath.Join(dir, "e.png"), "t", LossHistory{Train: []float64{0.5}}),
		LossPlot(filepath.Join(dir, "f.png"), "t", LossHistory{Train: []float64{1e300, -1e300}}),
		SchedulePlot(filepath.Join(dir, "g.png"), "t", nil, nil),
	} {
		require.NoError(t, err)
	}
	require.Error(t, LossPlot(filepath.Join(dir, "absent", "x.png"), "t", LossHistory{}))
}

func TestProgrammerErrors(t *testing.T) {
	assert.Panics(t, func() { DicePlot("x.png", "", Curve{"", []float64{1}, nil}) })
	assert.Panics(t, func() { LossPlot("x.png", "", LossHistory{Valid: []float64{1}}) })
}

// disc is a w x h film with a bright area, its mask and a prediction that is
// shifted to the right.
func disc(w, h int) Sample {
	s := Sample{Image: image.NewGray(image.Rect(0, 0, w, h)), Target: image.NewGray(image.Rect(0, 0, w, h)), Prob: make([]float32, w*h)}
	for y := range h {
		for x := range w {
			s.Image.Pix[y*w+x] = uint8(40 + 120*x/w + 60*y/h)
			dx, dy := float64(x-w/3)/float64(w), float64(y-h/2)/float64(h)
			if dx*dx+4*dy*dy < 0.03 {
				s.Target.Pix[y*w+x] = 255
			}
			dx -= 0.05
			s.Prob[y*w+x] = float32(1 / (1 + math.Exp(120*(dx*dx+4*dy*dy-0.03))))
		}
	}
	return s
}

func TestSamples(t *testing.T) {
	a, b, c := disc(128, 128), disc(96, 64), disc(700, 512)
	a.Caption = "0001_1.png   Dice 0.871"
	b.Caption = "a wide film, threshold 0.2"
	b.Threshold = 0.2
	c.Caption = "no target known " + strings.Repeat("and a caption that does not fit ", 10)
	c.Target = nil
	// A window into a larger image: its rectangle does not begin at zero.
	big := image.NewGray(image.Rect(0, 0, 200, 200))
	for i := range big.Pix {
		big.Pix[i] = 7
	}
	window := big.SubImage(image.Rect(50, 60, 178, 188)).(*image.Gray)
	for y := range 128 {
		copy(window.Pix[y*window.Stride:][:128], a.Image.Pix[y*128:])
	}
	direct, windowed := filepath.Join(t.TempDir(), "a.png"), filepath.Join(t.TempDir(), "b.png")
	require.NoError(t, Samples(direct, []Sample{a}, nil))
	w := a
	w.Image = window
	require.NoError(t, Samples(windowed, []Sample{w}, nil))
	x, err := os.ReadFile(direct)
	require.NoError(t, err)
	y, err := os.ReadFile(windowed)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(x, y), "a window into a larger image looks like the image")

	path := out(t, "samples.png")
	require.NoError(t, Samples(path, []Sample{a, b, c}, &SampleOptions{Title: "fold 0, out of fold"}))
	m := decode(t, path)
	assert.True(t, has(m, green), "target outline")
	assert.True(t, has(m, amber), "prediction outline")
}

func TestSamplesRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.png")
	good := disc(8, 4)
	short := disc(8, 4)
	short.Prob = short.Prob[1:]
	other := disc(8, 4)
	other.Target = image.NewGray(image.Rect(0, 0, 4, 8))
	for _, c := range []struct {
		name    string
		samples []Sample
		want    string
	}{
		{"none", nil, "no samples"},
		{"no image", []Sample{good, {Caption: "0002.png"}}, "sample 1 (0002.png): there is no image"},
		{"other target", []Sample{other}, "(8,4), the target (4,8)"},
		{"few probabilities", []Sample{short}, "needs 32 probabilities, 31 came"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorContains(t, Samples(path, c.samples, nil), c.want)
			require.NoFileExists(t, path)
		})
	}
	many := make([]Sample, 1000)
	for i := range many {
		many[i] = good
	}
	require.ErrorContains(t, Samples(path, many, nil), "draw fewer")
}

// A pixel is 1 film pixel enlarged by 4: what stands at (x, y) of the film must
// come out at 4x, 4y of the picture.
func TestSamplesGeometry(t *testing.T) {
	s := Sample{Image: image.NewGray(image.Rect(0, 0, 5, 3)), Target: image.NewGray(image.Rect(0, 0, 5, 3)), Prob: make([]float32, 15)}
	s.Image.SetGray(4, 0, color.Gray{200})
	s.Target.SetGray(3, 1, color.Gray{255})
	s.Prob[2*5+1] = 0.9
	path := filepath.Join(t.TempDir(), "s.png")
	require.NoError(t, Samples(path, []Sample{s}, &SampleOptions{Cell: 20}))
	m := decode(t, path)
	at := func(column, x, y int) color.RGBA {
		return color.RGBAModel.Convert(m.At(samplePad+column*(20+samplePad)+4*x, samplePad+headRow+4*y)).(color.RGBA)
	}
	assert.Equal(t, color.RGBA{200, 200, 200, 255}, at(0, 4, 0))
	assert.Equal(t, color.RGBA{0, 0, 0, 255}, at(0, 3, 1))
	assert.Equal(t, green, at(1, 3, 1))
	assert.Equal(t, color.RGBA{0, 0, 0, 255}, at(1, 1, 2))
	assert.Equal(t, amber, at(2, 1, 2))
	assert.Equal(t, green, at(2, 3, 1), "the target's outline")
	assert.Equal(t, color.RGBA{0, 0, 0, 255}, at(2, 2, 1))
}

// A film that is higher than wide fills its cell by its height.
func TestSamplesTall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.png")
	require.NoError(t, Samples(path, []Sample{disc(10, 40)}, &SampleOptions{Cell: 80}))
	assert.Equal(t, image.Pt(samplePad+3*(20+samplePad), 2*samplePad+headRow+80+captionRow), decode(t, path).Bounds().Size())
}

var twoPhases = []Epoch{
	{"frozen", 0, 0.693147, 0.5, 0.123456, 131*time.Second + 900*time.Millisecond},
	{"frozen", 1, 0.25, math.NaN(), math.NaN(), 59 * time.Second},
	{"full", 0, math.Inf(1), 1.0 / 3, 1, 3661*time.Second + 1},
}

func TestPage(t *testing.T) {
	dir := t.TempDir()
	picture := filepath.Join(dir, "dice.png")
	require.NoError(t, DicePlot(picture, "fold 0", hump(0.19, 0.84)))
	path := out(t, "report.html")
	require.NoError(t, WritePage(path, Page{
		Title: "Run <1>",
		Sections: []Section{
			{Heading: "Scores", Text: "Mean Dice beside an all-empty prediction & co.\n\nSecond paragraph.",
				Header: []string{"fold", "Dice"}, Rows: [][]string{{"0", "0.8412"}, {"1", "<b>"}}},
			{Heading: "Fold 0", Images: []string{picture}, Log: "epoch  train_loss\n0      0.5\n"},
		},
	}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	text := string(b)
	for _, want := range []string{
		"<title>Run &lt;1&gt;</title>", "<h2>Scores</h2>", "<p>Mean Dice beside an all-empty prediction &amp; co.</p>", "<p>Second paragraph.</p>",
		"<th>Dice</th>", "<td>0.8412</td>", "<td>&lt;b&gt;</td>", `<img alt="dice" src="data:image/png;base64,iVBORw0KGgo`, "<pre>epoch  train_loss\n0      0.5\n</pre>",
	} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "ZgotmplZ", "what the template thinks unsafe")
	assert.NotContains(t, text, "http", "the page asks nobody for anything")

	other := filepath.Join(dir, "x.html")
	require.ErrorIs(t, WritePage(other, Page{Sections: []Section{{Images: []string{filepath.Join(dir, "absent.png")}}}}), os.ErrNotExist)
	text2 := filepath.Join(dir, "no.png")
	require.NoError(t, os.WriteFile(text2, []byte("no picture"), 0o666))
	require.ErrorContains(t, WritePage(other, Page{Sections: []Section{{Images: []string{text2}}}}), "no.png is no PNG")
	require.NoFileExists(t, other)
}

func TestWriteTable(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, WriteTable(&b, twoPhases))
	assert.Equal(t, `frozen
epoch     train_loss  valid_loss  dice      time
0         0.693147    0.500000    0.123456  02:11
1         0.250000    -           -         00:59
full
epoch     train_loss  valid_loss  dice      time
0         +Inf        0.333333    1.000000  1:01:01
`, b.String())
}

func TestEpochsRoundTrip(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, WriteEpochs(&b, twoPhases))
	first, _, _ := strings.Cut(b.String(), "\n")
	assert.Equal(t, "phase,epoch,train_loss,valid_loss,dice,seconds", first)
	got, err := ReadEpochs(&b)
	require.NoError(t, err)
	require.Len(t, got, len(twoPhases))
	for i, want := range twoPhases {
		assert.Equal(t, want.Phase, got[i].Phase)
		assert.Equal(t, want.Epoch, got[i].Epoch)
		assert.Equal(t, math.Float64bits(want.TrainLoss), math.Float64bits(got[i].TrainLoss))
		assert.Equal(t, want.ValidLoss != want.ValidLoss, got[i].ValidLoss != got[i].ValidLoss)
		assert.Equal(t, want.Time, got[i].Time)
	}
	assert.Equal(t, 1.0/3, got[2].ValidLoss)
}

func TestReadEpochsRefuses(t *testing.T) {
	const head = "phase,epoch,train_loss,valid_loss,dice,seconds\n"
	for _, c := range []struct{ name, text, want string }{
		{"other header", "phase,epoch,loss,valid_loss,dice,seconds\n", `column 3 is "loss", wanted "train_loss"`},
		{"no number", head + "frozen,0,1,2,3,4\nfrozen,1,1,x,3,4\n", "line 3, valid_loss"},
		{"no epoch", head + "frozen,a,1,2,3,4\n", "line 2, epoch"},
		{"few fields", head + "frozen,0\n", "wrong number of fields"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ReadEpochs(strings.NewReader(c.text))
			require.ErrorContains(t, err, c.want)
		})
	}
}

// ticking returns a Progress on a buffer whose clock the test moves.
func ticking(columns int) (*Progress, *bytes.Buffer, *time.Time) {
	var b bytes.Buffer
	clock := time.Date(2019, 9, 1, 12, 0, 0, 0, time.UTC)
	p := NewProgress(&b)
	p.now = func() time.Time { return clock }
	if columns > 0 {
		p.width = func() int { return columns }
	}
	return p, &b, &clock
}

func TestPlainLines(t *testing.T) {
	p, b, clock := ticking(0)
	p.Start("fold 0 frozen", 200)
	for range 100 {
		*clock = clock.Add(time.Second)
		p.Step(0.5)
	}
	p.Epoch(Epoch{Epoch: 0, TrainLoss: 0.5, ValidLoss: 0.25, Dice: 0.75, Time: 100 * time.Second})
	p.End()
	p.Start("prepare", 3)
	p.Add(2)
	p.Printf("0003.dcm: %s", "no pixels")
	p.Add(1)
	*clock = clock.Add(12 * time.Second)
	p.End()
	p.End()
	assert.Equal(t, `fold 0 frozen: 200
fold 0 frozen: 30/200  loss 0.5000  02:50 left
fold 0 frozen: 60/200  loss 0.5000  02:20 left
fold 0 frozen: 90/200  loss 0.5000  01:50 left
epoch     train_loss  valid_loss  dice      time
0         0.500000    0.250000    0.750000  01:40
prepare: 3
0003.dcm: no pixels
prepare: 3 in 00:12
`, b.String())
}

// screen plays what was written as a terminal of one line at a time would: "\r"
// goes back, "\x1b[K" clears the rest.
func screen(t *testing.T, s string) []string {
	t.Helper()
	lines := []string{}
	var line []rune
	at := 0
	for len(s) > 0 {
		switch {
		case strings.HasPrefix(s, "\x1b[K"):
			line = line[:at]
			s = s[3:]
		case s[0] == '\r':
			at = 0
			s = s[1:]
		case s[0] == '\n':
			lines = append(lines, string(line))
			line, at = nil, 0
			s = s[1:]
		default:
			r := []rune(s)[0]
			line = append(line[:at], append([]rune{r}, line[min(at+1, len(line)):]...)...)
			at++
			s = s[len(string(r)):]
		}
	}
	return append(lines, string(line))
}

func TestLiveBar(t *testing.T) {
	p, b, clock := ticking(80)
	p.Start("fold 0 frozen", 300)
	require.Equal(t, []string{"fold 0 frozen   0% ──────────────────────────────  0/300"}, screen(t, b.String()))
	for range 150 {
		*clock = clock.Add(time.Second)
		p.Step(0.25)
	}
	require.Equal(t, []string{"fold 0 frozen  50% ━━━━━━━━━━━━━─────────────  150/300  loss 0.2500  02:30 left"}, screen(t, b.String()))
	p.Epoch(Epoch{Epoch: 0, TrainLoss: 0.5, ValidLoss: 0.25, Dice: 0.75, Time: 100 * time.Second})
	p.End()
	require.Equal(t, []string{
		"fold 0 frozen",
		"epoch     train_loss  valid_loss  dice      time",
		"0         0.500000    0.250000    0.750000  01:40",
		"",
	}, screen(t, b.String()))
}

func TestBarIsNeverWiderThanTheTerminal(t *testing.T) {
	for columns := range 100 {
		p, b, clock := ticking(columns + 1)
		p.Start("prépare", 100)
		for i := range 120 { // more than announced
			*clock = clock.Add(time.Minute)
			p.Step(float64(i))
		}
		for _, line := range strings.FieldsFunc(b.String(), func(r rune) bool { return r == '\r' || r == '\n' }) {
			line = strings.TrimSuffix(line, "\x1b[K")
			require.LessOrEqual(t, len([]rune(line)), columns, "%q", line)
		}
	}
}

func TestRedrawsAreFew(t *testing.T) {
	p, b, clock := ticking(80)
	p.Start("x", 100000)
	for range 100000 {
		*clock = clock.Add(time.Millisecond)
		p.Add(1)
	}
	assert.Equal(t, 1+1000, strings.Count(b.String(), "\r"))
}

func TestResumedDownload(t *testing.T) {
	p, b, clock := ticking(100)
	set := p.Bytes("resnet34-333f7ec4.pth")
	set(80_000_000, 87_306_240)
	*clock = clock.Add(10 * time.Second)
	set(81_000_000, 87_306_240)
	assert.Equal(t, []string{"resnet34-333f7ec4.pth  92% ━━━━━━━━━━━━━━━━━━━━━━━━━━━───  81.0 MB/87.3 MB  01:04 left"}, screen(t, b.String()))
}

func TestUnknownTotal(t *testing.T) {
	p, b, clock := ticking(80)
	p.Start("walking", 0)
	*clock = clock.Add(65 * time.Second)
	p.Add(7)
	assert.Equal(t, []string{"walking  7  01:05"}, screen(t, b.String()))
}

func TestNilProgressIsSilent(t *testing.T) {
	var p *Progress
	p.Start("x", 1)
	p.StartBytes("x", 1)
	p.Bytes("x")(1, 2)
	p.Step(1)
	p.Add(1)
	p.Set(1)
	p.Epoch(Epoch{})
	p.Printf("x")
	p.End()
}

func TestProgressFromManyGoroutines(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b)
	p.Start("films", 4000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				p.Add(1)
			}
		})
	}
	wg.Wait()
	p.End()
	assert.Contains(t, b.String(), "films: 4000 in 00:00")
}
