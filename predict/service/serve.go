package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// maxHeader is the largest size of a request's header in bytes.
const maxHeader = 16 << 10

// Serve makes a first prediction (see Warm) and answers requests at l until ctx is done.
// Then /readyz answers 503 for Options.Drain, and after that no more connections are
// accepted and the requests that are being worked on are answered. If some of them take
// longer than Options.Grace, Serve interrupts them and returns an error. It closes l.
//
// Serve also returns an error if the first prediction or the listener fails.
func (s *Service) Serve(ctx context.Context, l net.Listener) error {
	header := min(s.opt.Receive, 10*time.Second)
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: header,
		WriteTimeout:      s.opt.Receive + s.opt.Answer + s.opt.Receive, // counted from the end of the header
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelWarn),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.metrics.open.Inc()
			case http.StateClosed, http.StateHijacked:
				s.metrics.open.Dec()
			}
		},
	}
	warm, warmed := context.WithCancel(ctx)
	defer warmed()
	ended := make(chan error, 2)
	go func() {
		if err := s.Warm(warm); err != nil && ctx.Err() == nil {
			ended <- err
		}
	}()
	go func() { ended <- server.Serve(netutil.LimitListener(l, s.opt.Connections)) }()
	select {
	case err := <-ended:
		server.Close()
		return err
	case <-ctx.Done():
	}

	s.state.Store(closing)
	s.opt.Log.Info("shutting down", "films", len(s.places), "drain", s.opt.Drain, "grace", s.opt.Grace)
	time.Sleep(s.opt.Drain)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opt.Grace)
	defer cancel()
	err := server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		server.Close()
		return fmt.Errorf("service: some requests had no answer after %v", s.opt.Grace)
	}
	return err
}
