package service

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An exchange is a request and its answer.
type exchange struct {
	w        *writer
	r        *http.Request
	id       string
	received int         // bytes of the body that were received
	notes    []slog.Attr // additional attributes of the log line
}

// A handler answers a request, or returns the error to answer with.
type handler func(*exchange) error

// note adds attributes to the log line of the request.
func (e *exchange) note(a ...slog.Attr) { e.notes = append(e.notes, a...) }

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	e := &exchange{w: &writer{ResponseWriter: w}, r: r, id: requestID(r.Header.Get("X-Request-Id"))}
	e.w.Header().Set("X-Request-Id", e.id)
	e.w.Header().Set("X-Content-Type-Options", "nosniff")
	e.w.Header().Set("Cache-Control", "no-store")
	path := "other" // unknown paths are neither logged nor counted, because a client may write anything into them
	if s.routes[r.URL.Path] != nil {
		path = r.URL.Path
	}
	s.metrics.flying.Inc()
	defer s.metrics.flying.Dec()
	failed := s.answer(e)
	took := time.Since(start)

	status := e.w.status
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("id", e.id), slog.String("method", method(r)), slog.String("path", path)}
	if failed != nil {
		status = failed.status
		attrs = append(attrs, slog.String("error", failed.code))
		if failed.cause != nil {
			level = slog.LevelError
			attrs = append(attrs, slog.String("cause", failed.cause.Error()))
		}
	}
	attrs = append(attrs, slog.Int("status", status), slog.Int("received", e.received), slog.Int("sent", e.w.sent), milliseconds("took_ms", took))
	s.metrics.request(path, method(r), status, took)
	if path != "/healthz" && path != "/readyz" && path != "/metrics" || failed != nil {
		s.opt.Log.LogAttrs(r.Context(), level, "request", append(attrs, e.notes...)...)
	}
}

// answer answers a request. It returns the failure that it answered with, or nil.
func (s *Service) answer(e *exchange) (failed *failure) {
	defer func() {
		if p := recover(); p != nil {
			failed = fail(http.StatusInternalServerError, "internal", "the service has a fault; the log has it beside this id")
			failed.cause = fmt.Errorf("panic of a %T\n%s", p, debug.Stack()) // without the value, which may contain data of the film
			s.metrics.panics.Inc()
			e.fail(failed)
		}
	}()
	err := s.route(e)
	if err == nil {
		return nil
	}
	if !errors.As(err, &failed) {
		failed = fail(http.StatusInternalServerError, "internal", "the answer could not be made; the log has the reason beside this id")
		failed.cause = err
	}
	e.fail(failed)
	return failed
}

func (s *Service) route(e *exchange) error {
	methods := s.routes[e.r.URL.Path]
	if methods == nil {
		return fail(http.StatusNotFound, "not_found", "there is nothing here; there are %s", strings.Join(slices.Sorted(maps.Keys(s.routes)), ", "))
	}
	name := e.r.Method
	if name == http.MethodHead { // net/http drops the body of the answer
		name = http.MethodGet
	}
	h := methods[name]
	if h == nil {
		allow := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
		e.w.Header().Set("Allow", allow)
		return fail(http.StatusMethodNotAllowed, "method", "%.20q came; wanted %s", e.r.Method, allow)
	}
	return h(e)
}

// method returns the method of a request as a metric label: "other" for unusual ones.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
		return r.Method
	}
	return "other"
}

func (e *exchange) fail(f *failure) {
	if e.w.status != 0 || f.status == gone {
		return
	}
	for _, name := range []string{"Hcunet-Positive", "Hcunet-Notice"} {
		e.w.Header().Del(name)
	}
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		e.w.Header().Set("Retry-After", "1")
	}
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
		ID string `json:"id"`
	}
	body.Error.Code, body.Error.Message, body.ID = f.code, f.message, e.id
	_ = e.json(f.status, body)
}

func (e *exchange) json(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("service: %w", err)
	}
	return e.send(status, jsonType, append(b, '\n'))
}

func (e *exchange) text(status int, line string) error {
	return e.send(status, "text/plain; charset=utf-8", []byte(line+"\n"))
}

// send sends an answer. It ignores write errors: they mean that the client is gone.
func (e *exchange) send(status int, contentType string, body []byte) error {
	e.w.Header().Set("Content-Type", contentType)
	e.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	e.w.WriteHeader(status)
	_, _ = e.w.Write(body)
	return nil
}

func milliseconds(name string, d time.Duration) slog.Attr {
	return slog.Float64(name, float64(d.Microseconds())/1000)
}

// requestID returns id, which a client sent, if it has 1 to 64 letters, digits, hyphens,
// underscores and dots. Otherwise it returns a new random id.
func requestID(id string) string {
	harmless := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
	}
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, func(c rune) bool { return !harmless(c) }) {
		return rand.Text()
	}
	return id
}

// A writer is an http.ResponseWriter that records the status and the number of bytes sent.
type writer struct {
	http.ResponseWriter
	status, sent int
}

// Unwrap lets an http.ResponseController reach the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.sent += n
	return n, err
}
