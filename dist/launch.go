package dist

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// LaunchOptions are optional settings of [Launch] and [Farm].
type LaunchOptions struct {
	// Stdout and Stderr get the output of the processes: of rank 0 unchanged,
	// of the others with "[rank N] " or the name of the job before each line.
	// nil means os.Stdout and os.Stderr.
	Stdout, Stderr io.Writer

	// Grace is the time for which the other processes may continue after one
	// has failed, or after ctx is done, before they are killed; 0 means 10
	// seconds.
	Grace time.Duration
}

// Launch runs the program argv[0] as n processes on this machine, each with the
// variables that [FromEnviron] reads, and waits for them. If one fails, or when
// ctx is done, the others are interrupted, and killed after a grace period. On
// Linux no process is left even if this process is killed. The error names the
// first rank that failed and says how it failed.
func Launch(ctx context.Context, n int, argv []string, opt *LaunchOptions) error {
	if n < 1 || len(argv) == 0 {
		return fmt.Errorf("dist: launch %d processes of %q; wanted at least one process, and a program", n, argv)
	}
	o := opt.filled()
	port, err := freePort()
	if err != nil {
		return fmt.Errorf("dist: no free port for the store: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for rank := range n {
		cfg := Config{Rank: rank, Size: n, LocalRank: rank, LocalSize: n, Host: "127.0.0.1", Port: port}
		all.Go(func() {
			// The kernel kills the child when the thread that started it ends,
			// so the goroutine keeps its thread until the child has ended.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			p := process{name: fmt.Sprintf("rank %d of %d", rank, n), argv: argv, environ: cfg.Environ()}
			if rank > 0 {
				p.label = fmt.Sprintf("rank %d", rank)
			}
			if err := o.run(ctx, p); err != nil {
				cancel(err) // only the first cause counts
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// A process is one that a LaunchOptions runs.
type process struct {
	name    string // in errors
	label   string // before its lines; "" for none
	argv    []string
	environ []string // beside this process's
}

func (opt *LaunchOptions) filled() (o LaunchOptions) {
	if opt != nil {
		o = *opt
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	return o
}

// run runs one process to its end.
func (o *LaunchOptions) run(ctx context.Context, p process) error {
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...)
	cmd.Env = append(os.Environ(), p.environ...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = o.Grace // then it is killed
	dieWithParent(cmd)
	cmd.Stdout, cmd.Stderr = o.Stdout, o.Stderr
	if p.label != "" {
		out, err := &prefixed{w: o.Stdout, label: p.label}, &prefixed{w: o.Stderr, label: p.label}
		defer out.flush()
		defer err.flush()
		cmd.Stdout, cmd.Stderr = out, err
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil || ctx.Err() != nil && errors.As(err, &exit):
		return nil // it succeeded, or was ended because of another one
	case errors.As(err, &exit):
		return fmt.Errorf("dist: %s ended with %s", p.name, exit.ProcessState)
	}
	return fmt.Errorf("dist: %s: %w", p.name, err)
}

// freePort returns a port that is not in use now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// prefixed writes complete lines, each with a label before it.
type prefixed struct {
	w     io.Writer
	label string
	line  []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	for _, c := range b {
		if p.line = append(p.line, c); c == '\n' {
			p.flush()
		}
	}
	return len(b), nil
}

// flush writes the incomplete last line. An error is ignored, because there is
// no one to report it to.
func (p *prefixed) flush() {
	if len(p.line) == 0 {
		return
	}
	w := bufio.NewWriter(p.w)
	fmt.Fprintf(w, "[%s] %s", p.label, p.line)
	_ = w.Flush()
	p.line = p.line[:0]
}

// shared lets several processes' lines go to one writer.
type shared struct {
	mutex sync.Mutex
	w     io.Writer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.w.Write(b)
}
