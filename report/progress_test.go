package report

import (
	"bytes"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/metric"
)

var oneEpoch = metric.Epoch{
	TrainLoss: 0.5, Time: 100 * time.Second,
	Values: metric.Values{{Name: metric.ValidLoss, Value: 0.25}, {Name: "dice", Value: 0.75}},
}

// ticking returns a Progress on a buffer whose clock the test moves.
func ticking(columns int) (*Progress, *bytes.Buffer, *time.Time) {
	var b bytes.Buffer
	clock := time.Date(2019, 9, 1, 12, 0, 0, 0, time.UTC)
	p := NewProgress(&b)
	p.now = func() time.Time { return clock }
	p.memory = func() int64 { return 0 }
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
		p.Step(0.5, 8)
	}
	p.Epoch(oneEpoch)
	p.End()
	p.Start("prepare", 3)
	p.Add(2)
	p.Printf("0003.dcm: %s", "no pixels")
	p.Add(1)
	*clock = clock.Add(12 * time.Second)
	p.End()
	p.End()
	assert.Equal(t, `fold 0 frozen: 200
fold 0 frozen: 30/200  loss 0.5000  02:50 left  8 images/s
fold 0 frozen: 60/200  loss 0.5000  02:20 left  8 images/s
fold 0 frozen: 90/200  loss 0.5000  01:50 left  8 images/s
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
		p.Step(0.25, 8)
	}
	require.Equal(t, []string{"fold 0 frozen  50% ━━━━━━━───────  150/300  loss 0.2500  02:30 left  8 images/s"}, screen(t, b.String()))
	p.Epoch(oneEpoch)
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
			p.Step(float64(i), 8)
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
	p.Step(1, 8)
	p.Add(1)
	p.Set(1)
	p.Epoch(metric.Epoch{})
	p.Memory("GPU", nil)
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

func TestPace(t *testing.T) {
	p, b, clock := ticking(110)
	p.Start("fold 0", 300)
	p.Memory("", func() int64 { return 345_600_000 })
	*clock = clock.Add(6 * time.Second)
	p.Step(0.25, 16)
	require.Equal(t, []string{"fold 0   0% ──────────────────────────────  1/300  loss 0.2500  29:54 left  2.67 images/s  346 MB"}, screen(t, b.String()))
	p.Memory("GPU", func() int64 { return 2_345_600_000 })
	*clock = clock.Add(6 * time.Second)
	p.Step(0.25, 16)
	require.Equal(t, []string{"fold 0   0% ──────────────────────────────  2/300  loss 0.2500  29:48 left  2.67 images/s  GPU 2.3 GB"}, screen(t, b.String()))
}

// The memory of the process is that of the system's own table: at least what a
// large slice that was written to takes.
func TestResidentMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("not known on this system")
	}
	before := residentMemory()
	require.Positive(t, before)
	large := make([]byte, 64<<20)
	for i := range large {
		large[i] = byte(i)
	}
	assert.Greater(t, residentMemory(), before+32<<20)
	assert.Equal(t, byte(255), large[255])
}
