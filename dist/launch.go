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

// LaunchOptions are optional settings of [Launch].
type LaunchOptions struct {
	// Stdout and Stderr take what the processes print: rank 0's as it is, the
	// others' with "[rank N] " before each line. nil means os.Stdout and os.Stderr.
	Stdout, Stderr io.Writer

	// Grace is how long the others may go on after one has failed, or after ctx
	// has ended, before they are killed; 0 means 10 seconds.
	Grace time.Duration
}

// Launch runs the program argv[0] as n processes on this machine, each with the
// variables that [FromEnviron] reads, and waits for them. When one fails, or when
// ctx ends, the others are interrupted and after a grace period killed; none is
// left behind, even if this process is killed itself (on Linux). The error names
// the first rank that failed and how.
func Launch(ctx context.Context, n int, argv []string, opt *LaunchOptions) error {
	if n < 1 || len(argv) == 0 {
		return fmt.Errorf("dist: launch %d processes of %q, wanted at least one and a program", n, argv)
	}
	o := LaunchOptions{}
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
			// The kernel ends the child with the thread that started it, so the
			// goroutine keeps its thread until the child is done.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if err := o.run(ctx, cfg, argv); err != nil {
				cancel(err) // the first cause stays
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// run runs one process to its end.
func (o *LaunchOptions) run(ctx context.Context, cfg Config, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), cfg.Environ()...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = o.Grace // then it is killed
	dieWithParent(cmd)
	cmd.Stdout, cmd.Stderr = o.Stdout, o.Stderr
	if cfg.Rank > 0 {
		out, err := &prefixed{w: o.Stdout, rank: cfg.Rank}, &prefixed{w: o.Stderr, rank: cfg.Rank}
		defer out.flush()
		defer err.flush()
		cmd.Stdout, cmd.Stderr = out, err
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil || ctx.Err() != nil && errors.As(err, &exit):
		return nil // ended by itself, or because of another
	case errors.As(err, &exit):
		return fmt.Errorf("dist: rank %d of %d ended with %s", cfg.Rank, cfg.Size, exit.ProcessState)
	}
	return fmt.Errorf("dist: rank %d of %d: %w", cfg.Rank, cfg.Size, err)
}

// freePort returns a port that nobody listens at now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// prefixed writes whole lines with the rank before them.
type prefixed struct {
	w    io.Writer
	rank int
	line []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	for _, c := range b {
		if p.line = append(p.line, c); c == '\n' {
			p.flush()
		}
	}
	return len(b), nil
}

// flush writes the line so far. Nobody can be told where that fails.
func (p *prefixed) flush() {
	if len(p.line) == 0 {
		return
	}
	w := bufio.NewWriter(p.w)
	fmt.Fprintf(w, "[rank %d] %s", p.rank, p.line)
	_ = w.Flush()
	p.line = p.line[:0]
}
