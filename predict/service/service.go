// Package service predicts films over HTTP with a predict.Predictor.
//
//	s, err := service.New(predictor, nil)
//	err = s.Serve(ctx, listener) // until ctx is done and the last film is answered
//
// The body of a POST request is the file of a film: DICOM, PNG or JPEG.
//
//	POST /predict           the result as JSON; with Accept: image/png the overlay
//	POST /predict/mask      the mask as PNG, of the film's size
//	POST /predict/overlay   the film with the outlines of the masks, as PNG
//	GET  /                  a page for a browser, to which one can drag films
//	GET  /model             a description of the model, as JSON
//	GET  /healthz           200 as long as the process answers
//	GET  /readyz            200 while the service takes films, otherwise 503
//	GET  /metrics           metrics for Prometheus
//
// The parameter with of /predict, such as with=film,overlay,mask, adds these images to the
// JSON, as PNG in base64. The parameter side=N (16 to 16384) makes film and overlay no
// larger than N pixels a side.
//
// Errors are JSON as well: {"error": {"code": ..., "message": ...}, "id": ...}. There are
// limits for the bodies, the times and the queue. If the queue is full when a request
// arrives, the service answers 429 with Retry-After and does not keep the request's body.
//
// The log has one line for each request, with its X-Request-Id, except for requests of
// /healthz, /readyz and /metrics that succeed. Logs and metrics contain neither pixels nor
// patient data. There is no TLS and no login; a proxy in front of the service should
// provide them.
//
// Results are for research use, not for diagnosis; every answer with a result says so.
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

// Options are the limits of a service; nil means all defaults.
type Options struct {
	Queue     int   // largest number of films that are worked on or wait; 0 means 16
	MaxBody   int64 // largest size of a film's file in bytes; 0 means 64 MiB
	MaxBodies int64 // largest size in bytes of all files in memory at a time; 0 means eight times MaxBody

	Receive time.Duration // time for a body to arrive, and for an answer to be fetched; 0 means 30 s
	Answer  time.Duration // time from the last byte of the body to the answer; 0 means 60 s

	// The following are used only by Serve.
	Connections int           // largest number of open connections, others wait to be accepted; 0 means 4096
	Drain       time.Duration // time in which /readyz answers 503 before connections are refused; 0 means none
	Grace       time.Duration // time for requests to end after that; 0 means 30 s

	Log *slog.Logger // nil means no log
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

	places chan struct{} // each film that was received holds one element
	held   atomic.Int64  // bytes of all bodies in memory
	state  atomic.Int32
}

// States of a service, for /readyz.
const (
	cold int32 = iota
	ready
	closing
)

// New returns a service that predicts with p. The caller closes p after the service has
// ended. The service is ready (/readyz) after Serve or Warm has made a first prediction.
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

// Warm predicts a black film, so that later films do not wait for the allocations and
// compilations of the first prediction, and then marks the service as ready. Only programs
// that do not call Serve need to call it.
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

// work receives and predicts the film of a request. It calls use with the result, while the
// film still has its place in the queue.
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
