package service

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// piece is the number of bytes that are received at a time.
const piece = 64 << 10

// receive returns the body of a request. It counts the memory of a body against MaxBodies
// as bytes arrive, whatever length the header announces. The caller must call release when
// the body is no longer needed, also after an error.
func (s *Service) receive(e *exchange) (body []byte, release func(), err error) {
	held := int64(0)
	release = func() { s.held.Add(-held) }
	switch {
	case e.r.ContentLength > s.opt.MaxBody:
		return nil, release, s.tooLarge()
	case strings.HasPrefix(e.r.Header.Get("Content-Type"), "multipart/"):
		return nil, release, fail(http.StatusUnsupportedMediaType, "unsupported", "the body is a form; wanted the film itself, as by curl --data-binary @film.dcm")
	}
	// A connection may not support deadlines, as in some tests; then there is no limit of time.
	control := http.NewResponseController(e.w)
	_ = control.SetReadDeadline(time.Now().Add(s.opt.Receive))
	var b bytes.Buffer
	from := http.MaxBytesReader(e.w, e.r.Body, s.opt.MaxBody)
	for {
		if s.held.Add(piece) > s.opt.MaxBodies {
			s.held.Add(-piece)
			f := s.busy()
			f.message = "too many films are being received at this moment; try again after the seconds of Retry-After"
			return nil, release, f
		}
		held += piece
		if _, err = io.CopyN(&b, from, piece); err != nil {
			break
		}
	}
	e.received = b.Len()
	var timeout net.Error
	var large *http.MaxBytesError
	switch {
	case err == io.EOF && b.Len() == 0:
		return nil, release, fail(http.StatusBadRequest, "empty", "the body is empty; wanted a DICOM, PNG or JPEG file, as by curl --data-binary @film.dcm")
	case err == io.EOF:
		_ = control.SetReadDeadline(time.Time{}) // the deadline would otherwise cancel a long prediction
		return b.Bytes(), release, nil
	case errors.As(err, &large):
		return nil, release, s.tooLarge()
	case errors.As(err, &timeout) && timeout.Timeout():
		e.w.Header().Set("Connection", "close")
		return nil, release, fail(http.StatusRequestTimeout, "slow_body", "%d bytes of the body came within %v, and not the last one", b.Len(), s.opt.Receive)
	}
	return nil, release, fail(gone, "gone", "the body ended after %d bytes: %v", b.Len(), err)
}

// discard reads up to 8 MiB of a body and drops it. A client that reads only after it has
// sent its whole body would otherwise get a connection reset instead of the answer.
func (s *Service) discard(e *exchange) {
	control := http.NewResponseController(e.w)
	_ = control.SetReadDeadline(time.Now().Add(s.opt.Receive))
	_, _ = io.CopyN(io.Discard, e.r.Body, 8<<20)
	_ = control.SetReadDeadline(time.Time{})
}

func (s *Service) tooLarge() *failure {
	return fail(http.StatusRequestEntityTooLarge, "too_large", "the body is too large; wanted at most %d bytes", s.opt.MaxBody)
}
