package report

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/hcunet/hcunet/metric"
)

const (
	redrawEvery = 100 * time.Millisecond // of the bar: looks smooth, and costs little compared to a training step
	lineEvery   = 30 * time.Second       // between lines in a log
	barCells    = 30                     // the bar is shorter if the terminal is narrow
	minCells    = 5                      // a shorter bar is left out
	lossDecay   = 0.98                   // of the running mean that is shown: fastai's SmoothenValue
)

// A Progress shows the progress of a task. On a terminal it shows one live line
// with a bar and the time left, below the lines that were printed. Elsewhere it
// prints plain lines for a log file, at most one every half minute. Errors of
// the writer are ignored, so that they do not end a run. All methods may be
// called from several goroutines, and do nothing on a nil *Progress.
//
// The well-known vbauerster/mpb and schollz/progressbar draw only bars: in a log
// file they write nothing, or one line with carriage returns.
type Progress struct {
	mu    sync.Mutex
	w     io.Writer
	width func() int // width of the terminal in characters; nil without a terminal
	now   func() time.Time

	memory      func() int64 // bytes; 0 means not known
	memoryLabel string

	title    string
	total    int64 // 0 means not known
	done     int64
	images   int64 // number of images trained in this task
	first    int64 // done before the task began, for example in an earlier download
	bytes    bool
	running  bool
	header   bool // the header of the table was printed for this task
	loss     float64
	weight   float64   // the weight of loss, 1 - lossDecay^n
	began    time.Time // when the task began
	shown    time.Time // when the bar or a line was last written
	barShown bool      // the cursor is at the end of a bar
}

// NewProgress returns a Progress that writes to w, usually os.Stderr. The bar is
// live if w is a terminal.
func NewProgress(w io.Writer) *Progress {
	p := &Progress{w: w, now: time.Now, memory: residentMemory}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.width = func() int {
			columns, _, err := term.GetSize(int(f.Fd()))
			if err != nil || columns <= 0 {
				return 80
			}
			return columns
		}
	}
	return p
}

// Memory makes the bar show the bytes that used returns, with a label such as
// "GPU", in place of the memory of the process. used is called each time the bar
// is drawn, from the goroutine that reports progress.
func (p *Progress) Memory(label string, used func() int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memoryLabel, p.memory = label, used
}

// Start begins a task of total steps (batches of all epochs, films, ...). It
// ends the task before, if that is still running. A total of 0 means that it is
// not known.
func (p *Progress) Start(title string, total int) { p.start(title, int64(total), false) }

// StartBytes begins a task that is counted in bytes, such as a download.
func (p *Progress) StartBytes(title string, total int64) { p.start(title, total, true) }

// Bytes returns a function for checkpoint.FetchOptions.Progress that shows a
// download. Its first call begins the task with that total (0 or less means not
// known).
func (p *Progress) Bytes(title string) func(done, total int64) {
	started := false
	return func(done, total int64) {
		if !started {
			p.StartBytes(title, total)
			started = true
		}
		p.Set(done)
	}
}

// Step counts one batch of that many images, and shows the running mean of the
// loss and the images per second. After a loss that is not finite, the running
// mean is not finite either.
func (p *Progress) Step(loss float64, images int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images += int64(images)
	p.loss = lossDecay*p.loss + (1-lossDecay)*loss
	p.weight = lossDecay*p.weight + (1 - lossDecay)
	p.set(p.done + 1)
}

// Add counts n steps.
func (p *Progress) Add(n int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(p.done + int64(n))
}

// Set sets the number of steps or bytes that are done. The number in the first
// call of a task was done before, and does not count for the speed.
func (p *Progress) Set(done int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == 0 {
		p.first = done
	}
	p.set(done)
}

// Epoch prints a row of the table above the bar, and the header before the first
// row of each task. Values that do not fit in 100 characters are left out.
func (p *Progress) Epoch(e metric.Epoch) {
	if p == nil {
		return
	}
	e = fitting(e)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(func() {
		if !p.header {
			if p.width != nil && p.title != "" {
				fmt.Fprintln(p.w, p.title)
			}
			writeCells(p.w, tableHeader(e), tableHeader(e))
			p.header = true
		}
		writeCells(p.w, tableHeader(e), tableRow(e))
	})
}

// Printf prints a line above the bar.
func (p *Progress) Printf(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(func() { fmt.Fprintf(p.w, format+"\n", args...) })
}

// End removes the bar. If no table was printed, it prints a line with the amount
// and the time. Without a running task it does nothing.
func (p *Progress) End() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

func (p *Progress) start(title string, total int64, bytes bool) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
	p.title, p.total, p.bytes = title, max(total, 0), bytes
	p.done, p.images, p.first, p.loss, p.weight = 0, 0, 0, 0, 0
	p.running, p.header = true, false
	p.began = p.now()
	p.shown = p.began
	if p.width != nil {
		p.drawBar()
	} else if p.total > 0 {
		fmt.Fprintf(p.w, "%s: %s\n", p.title, p.amount(p.total))
	} else {
		fmt.Fprintln(p.w, p.title)
	}
}

// set sets the progress of the task and redraws the bar or prints a line if it
// is time to.
func (p *Progress) set(done int64) {
	p.done = done
	now := p.now()
	switch {
	case !p.running:
	case p.width != nil && now.Sub(p.shown) >= redrawEvery:
		p.drawBar()
	case p.width == nil && now.Sub(p.shown) >= lineEvery:
		p.shown = now
		count, rest := p.status(now)
		fmt.Fprintf(p.w, "%s: %s%s%s\n", p.title, count, rest, p.pace(now))
	}
}

// print erases the bar, calls write and draws the bar again.
func (p *Progress) print(write func()) {
	p.clearBar()
	write()
	p.shown = p.now()
	if p.running && p.width != nil {
		p.drawBar()
	}
}

func (p *Progress) end() {
	if !p.running {
		return
	}
	p.clearBar()
	p.running = false
	if !p.header {
		fmt.Fprintf(p.w, "%s: %s in %s\n", p.title, p.amount(p.done), clock(p.now().Sub(p.began)))
	}
}

func (p *Progress) clearBar() {
	if p.barShown {
		io.WriteString(p.w, "\r\x1b[K")
		p.barShown = false
	}
}

// drawBar writes
//
//	title  45% ━━━━━━──────  135/300  loss 0.0387  08:02 left  12.3 images/s  2.1 GB
//
// over the current line. It is never wider than the terminal, because a line
// that wraps could not be erased.
func (p *Progress) drawBar() {
	now := p.now()
	p.shown = now
	count, rest := p.status(now)
	line := p.title
	tail := "  " + count + rest
	if more := p.pace(now); utf8.RuneCountInString(line+tail+more)+minCells+8 <= p.width() {
		tail += more
	}
	if p.total > 0 {
		part := min(float64(p.done)/float64(p.total), 1)
		line += fmt.Sprintf(" %3.0f%%", math.Floor(100*part))
		room := p.width() - 2 - utf8.RuneCountInString(line+tail)
		if cells := min(room, barCells); cells >= minCells {
			full := int(part * float64(cells))
			line += " " + strings.Repeat("━", full) + strings.Repeat("─", cells-full)
		}
	}
	line += tail
	if r := []rune(line); len(r) >= p.width() {
		line = string(r[:max(p.width()-1, 0)])
	}
	io.WriteString(p.w, "\r"+line+"\x1b[K")
	p.barShown = true
}

// status returns the count, "135/300", and what follows it: the loss, and the
// time left at the mean speed so far.
func (p *Progress) status(now time.Time) (count, rest string) {
	count = p.amount(p.done)
	if p.total > 0 {
		count += "/" + p.amount(p.total)
	}
	if p.weight > 0 {
		rest += fmt.Sprintf("  loss %.4f", p.loss/p.weight)
	}
	elapsed := now.Sub(p.began)
	if moved := p.done - p.first; moved > 0 && p.total > p.done {
		left := elapsed.Seconds() * float64(p.total-p.done) / float64(moved)
		left = math.Ceil(min(left, math.MaxInt32) - 1e-3) // rounded up, so that it never shows "00:00 left" too early
		rest += "  " + clock(time.Duration(left)*time.Second) + " left"
	} else if p.total == 0 {
		rest += "  " + clock(elapsed)
	}
	return count, rest
}

// pace returns the images per second and the memory, as far as they are known.
func (p *Progress) pace(now time.Time) string {
	out := ""
	if elapsed := now.Sub(p.began); p.images > 0 && elapsed > 0 {
		out = fmt.Sprintf("  %.3g images/s", float64(p.images)/elapsed.Seconds())
		if used := p.memory(); used > 0 {
			out += "  " + strings.TrimSpace(p.memoryLabel+" "+size(used))
		}
	}
	return out
}

// size formats bytes as "2.1 GB" or "340 MB".
func size(n int64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
	return fmt.Sprintf("%.0f MB", float64(n)/1e6)
}

func (p *Progress) amount(n int64) string {
	if p.bytes {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprint(n)
}
