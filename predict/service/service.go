// Package service answers films over HTTP with a predict.Predictor.
//
//	s, err := service.New(predictor, nil)
//	err = s.Serve(ctx, listener) // until ctx is done and the last film is answered
//
// The body of a request is a film, DICOM, PNG or JPEG, as it is in its file:
//
//	POST /predict           what was found, as JSON; with Accept: image/png the overlay
//	POST /predict/mask      the mask as PNG, of the film's size
//	POST /predict/overlay   the film with the outline of what was found, as PNG
//	GET  /                  a page to drop a film on
//	GET  /model             what the model is, as JSON
//	GET  /healthz           200 as long as the process answers
//	GET  /readyz            200 while films are welcome
//	GET  /metrics           for Prometheus
//
// POST /predict?with=film,overlay,mask adds these pictures to the JSON, as base64 PNG;
// side=N makes the film and the overlay no larger than N pixels a side.
//
// An error is JSON too: {"error": {"code": ..., "message": ...}, "id": ...}. Bodies,
// times and the queue have limits. Where the service is busy it answers 429 with
// Retry-After at once, and needs no memory for those whom it refuses.
//
// Logs have a line for each request, with its X-Request-Id, and neither pixels nor
// anything that a film says of its patient. There is no TLS and no login: a proxy in
// front has them.
//
// Results are for research use, not for diagnosis, and say so.
package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hcunet/hcunet/predict"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are a service's limits; nil means all defaults.
type Options struct {
	Queue     int   // films at work or waiting, at most; 0 means 16
	MaxBody   int64 // bytes of a film's file; 0 means 64 MiB
	MaxBodies int64 // bytes of all files that are held at a time; 0 means eight times MaxBody

	Receive time.Duration // for a body to arrive, and for an answer to be fetched; 0 means 30 s
	Answer  time.Duration // from the last byte of the body to the answer; 0 means 60 s

	// These are for Serve.
	Connections int           // at a time; more wait to be accepted; 0 means 4096
	Drain       time.Duration // in which /readyz says no before connections are refused; 0 means none
	Grace       time.Duration // for requests to end after that; 0 means 30 s

	Log *slog.Logger // nil means silence
}

func (o *Options) fill() error {
	if min(int64(o.Queue), o.MaxBody, o.MaxBodies, int64(o.Receive), int64(o.Answer), int64(o.Connections), int64(o.Drain), int64(o.Grace)) < 0 {
		return fmt.Errorf("service: a limit below 0 in %+v", *o)
	}
	set(&o.Queue, 16)
	set(&o.MaxBody, 64<<20)
	set(&o.MaxBodies, 8*o.MaxBody)
	set(&o.Receive, 30*time.Second)
	set(&o.Answer, time.Minute)
	set(&o.Connections, 4096)
	set(&o.Grace, 30*time.Second)
	if o.MaxBodies < o.MaxBody {
		return fmt.Errorf("service: one file may have %d bytes, but all together %d; wanted no less", o.MaxBody, o.MaxBodies)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func set[T comparable](v *T, unset T) {
	var zero T
	if *v == zero {
		*v = unset
	}
}

// A Service is an http.Handler for films.
type Service struct {
	p       *predict.Predictor
	model   *predict.Model
	opt     Options
	metrics *metrics
	routes  map[string]map[string]handler // by path and method
	page    []byte

	places chan struct{} // one is taken by each film that was received
	held   atomic.Int64  // bytes of bodies
	state  atomic.Int32
}

// States of a service, for /readyz.
const (
	cold int32 = iota
	ready
	closing
)

// New returns a service over a predictor, which the caller closes after it. It says
// that it is ready once Serve or Warm have made a first prediction.
func New(p *predict.Predictor, opt *Options) (*Service, error) {
	s := &Service{p: p, model: p.Model()}
	if opt != nil {
		s.opt = *opt
	}
	if err := s.opt.fill(); err != nil {
		return nil, err
	}
	s.places = make(chan struct{}, s.opt.Queue)
	s.metrics = newMetrics(s)
	var err error
	if s.page, err = page(s.model); err != nil {
		return nil, err
	}
	collected := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: s.opt.Receive})
	s.routes = map[string]map[string]handler{
		"/predict":         {http.MethodPost: s.predict},
		"/predict/mask":    {http.MethodPost: s.mask},
		"/predict/overlay": {http.MethodPost: s.overlay},
		"/model":           {http.MethodGet: s.modelCard},
		"/healthz":         {http.MethodGet: s.health},
		"/readyz":          {http.MethodGet: s.readiness},
		"/metrics": {http.MethodGet: func(e *exchange) error {
			collected.ServeHTTP(e.w, e.r)
			return nil
		}},
		"/":         {http.MethodGet: s.file("text/html; charset=utf-8", s.page)},
		"/page.css": {http.MethodGet: s.file("text/css; charset=utf-8", pageCSS)},
		"/page.js":  {http.MethodGet: s.file("text/javascript; charset=utf-8", pageJS)},
	}
	return s, nil
}

// Warm predicts a black film, which has everything allocated and compiled that the
// first film would wait for, and then says that the service is ready.
func (s *Service) Warm(ctx context.Context) error {
	size := s.model.Size()
	if _, err := s.p.Image(ctx, image.NewGray(image.Rect(0, 0, size, size))); err != nil {
		return fmt.Errorf("service: the model cannot predict a black film: %w", err)
	}
	s.state.CompareAndSwap(cold, ready)
	return nil
}

func (s *Service) health(e *exchange) error { return e.text(http.StatusOK, "ok") }

func (s *Service) readiness(e *exchange) error {
	switch s.state.Load() {
	case cold:
		return e.text(http.StatusServiceUnavailable, "the first prediction is under way")
	case closing:
		return e.text(http.StatusServiceUnavailable, "shutting down")
	}
	return e.text(http.StatusOK, "ready")
}

func (s *Service) modelCard(e *exchange) error {
	return e.json(http.StatusOK, struct {
		*predict.Model
		Digest  string   `json:"digest,omitempty"`
		Notices []string `json:"notices"`
	}{s.model, s.model.Digest, s.model.Notices()})
}

// work receives the film of a request, and has use make the answer of its result
// while it has a place.
func (s *Service) work(e *exchange, use func(*predict.Result) error) error {
	if len(s.places) == cap(s.places) {
		s.discard(e)
		return s.busy()
	}
	body, release, err := s.receive(e)
	defer release()
	if err != nil {
		return err
	}
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		return s.busy()
	}
	ctx, cancel := context.WithTimeoutCause(e.r.Context(), s.opt.Answer, errSlow)
	defer cancel()
	r, err := s.p.Read(ctx, bytes.NewReader(body))
	if err != nil {
		return s.refuse(err)
	}
	s.metrics.film(r)
	e.note(slog.Int("width", r.Width), slog.Int("height", r.Height), slog.Int("together", r.Timings.Batch),
		milliseconds("read_ms", r.Timings.Read), milliseconds("prepare_ms", r.Timings.Prepare), milliseconds("compute_ms", r.Timings.Compute))
	return use(r)
}

var errSlow = errors.New("the time for an answer is over")
