package service

import (
	"context"
	"errors"
	"fmt"
	"image"
	"net/http"

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/predict"
)

// A failure is an error that is answered to the client. Its code is logged. Its message is
// not, because it may quote the film.
type failure struct {
	status  int
	code    string // for programs
	message string // for people
	cause   error  // to be logged; nil if the request is the cause
}

func (f *failure) Error() string { return f.message }

// gone is the status that is logged if the client has gone before the answer, as in nginx.
const gone = 499

func fail(status int, code, format string, args ...any) *failure {
	return &failure{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// busy is the answer to a request that finds the queue full.
func (s *Service) busy() *failure {
	return fail(http.StatusTooManyRequests, "busy", "%d films are at work or waiting, which is the limit; try again after the seconds of Retry-After", s.opt.Queue)
}

// refuse returns the failure for an error of the Predictor.
func (s *Service) refuse(err error) *failure {
	film := new(predict.FilmError)
	switch {
	case errors.As(err, &film):
		return refuseFilm(film.Err)
	case errors.Is(err, predict.ErrBusy):
		return s.busy()
	case errors.Is(err, errSlow):
		return fail(http.StatusServiceUnavailable, "slow", "there was no answer within %v; try again later", s.opt.Answer)
	case errors.Is(err, context.Canceled):
		return fail(gone, "gone", "the client has gone")
	case errors.Is(err, predict.ErrClosed):
		return fail(http.StatusServiceUnavailable, "closing", "the service is shutting down")
	}
	f := fail(http.StatusInternalServerError, "internal", "the film could not be predicted; the log has the reason beside this id")
	f.cause = err
	return f
}

// refuseFilm returns the failure for the error of a film, with the message of the package
// that read the film.
func refuseFilm(err error) *failure {
	var unsupported *dicom.UnsupportedError
	switch {
	case errors.Is(err, dicom.ErrLimit), errors.Is(err, picture.ErrLimit):
		return fail(http.StatusRequestEntityTooLarge, "too_large", "%v", err)
	case errors.As(err, &unsupported):
		return fail(http.StatusUnsupportedMediaType, "unsupported", "%v", err)
	case errors.Is(err, image.ErrFormat):
		return fail(http.StatusUnsupportedMediaType, "unsupported", "%v; wanted a DICOM, PNG or JPEG file", err)
	}
	return fail(http.StatusUnprocessableEntity, "malformed", "%v; wanted a DICOM, PNG or JPEG file", err)
}
