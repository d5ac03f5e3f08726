package service

import (
	"fmt"
	"image"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/films"
)

// An answer is the JSON body of an answer to /predict.
type answer struct {
	ID    string `json:"id"`
	Model struct {
		Name   string `json:"name,omitempty"`
		Digest string `json:"digest,omitempty"`
	} `json:"model"`
	*predict.Result

	// PNG files, in JSON as base64; absent unless the query asks for them.
	Film    []byte `json:"film_png,omitempty"`
	Overlay []byte `json:"overlay_png,omitempty"`
	Mask    []byte `json:"mask_png,omitempty"`
}

// A wish holds the parameters of a query.
type wish struct {
	film, overlay, mask bool
	side                int // largest side of film and overlay in pixels; 0 means the film's own
}

// maxSide is the largest value of the parameter side, in pixels.
const maxSide = 1 << 14

func parseWish(q url.Values) (w wish, err error) {
	for name := range q {
		if name != "with" && name != "side" {
			return w, fail(http.StatusBadRequest, "query", "the query has %.40q; wanted with or side", name)
		}
	}
	if with := q.Get("with"); with != "" {
		for _, name := range strings.Split(with, ",") {
			switch name {
			case "film":
				w.film = true
			case "overlay":
				w.overlay = true
			case "mask":
				w.mask = true
			default:
				return w, fail(http.StatusBadRequest, "query", "with is %.40q; wanted film, overlay, mask, or some of them with commas between", with)
			}
		}
	}
	if side := q.Get("side"); side != "" {
		if w.side, err = strconv.Atoi(side); err != nil || w.side < 16 || w.side > maxSide {
			return w, fail(http.StatusBadRequest, "query", "side is %.40q; wanted 16 to %d pixels", side, maxSide)
		}
	}
	return w, nil
}

func (s *Service) predict(e *exchange) error {
	as, err := accepted(e.r.Header.Get("Accept"))
	if err != nil {
		return err
	}
	if as == pngType {
		return s.overlay(e)
	}
	wish, err := parseWish(e.r.URL.Query())
	if err != nil {
		return err
	}
	a := answer{ID: e.id}
	a.Model.Name, a.Model.Digest = s.model.Name, s.model.Digest
	err = s.work(e, func(r *predict.Result) (err error) {
		a.Result = r
		if wish.mask {
			if a.Mask, err = films.PNG(r.Mask(), r.Notices); err != nil {
				return err
			}
		}
		if !wish.film && !wish.overlay {
			return nil
		}
		seen, err := shrink(r, wish.side)
		if err != nil {
			return err
		}
		if wish.film {
			if a.Film, err = films.PNG(seen.Film.Image.Picture(), r.Notices); err != nil {
				return err
			}
		}
		if wish.overlay {
			a.Overlay, err = films.PNG(films.Overlay(seen), r.Notices)
		}
		return err
	})
	if err != nil {
		return err
	}
	return e.json(http.StatusOK, a)
}

func (s *Service) mask(e *exchange) error {
	return s.picture(e, func(r *predict.Result, _ int) (image.Image, error) { return r.Mask(), nil })
}

func (s *Service) overlay(e *exchange) error {
	return s.picture(e, func(r *predict.Result, side int) (image.Image, error) {
		seen, err := shrink(r, side)
		if err != nil {
			return nil, err
		}
		return films.Overlay(seen), nil
	})
}

// picture answers with the PNG that draw returns for the result. The headers
// Hcunet-Positive and Hcunet-Notice have whether anything was found, and the notices.
func (s *Service) picture(e *exchange, draw func(r *predict.Result, side int) (image.Image, error)) error {
	wish, err := parseWish(e.r.URL.Query())
	if err != nil {
		return err
	}
	var file []byte
	err = s.work(e, func(r *predict.Result) error {
		img, err := draw(r, wish.side)
		if err != nil {
			return err
		}
		e.w.Header().Set("Hcunet-Positive", strconv.FormatBool(r.Positive))
		e.w.Header().Set("Hcunet-Notice", strings.Join(r.Notices, "; "))
		file, err = films.PNG(img, r.Notices)
		return err
	})
	if err != nil {
		return err
	}
	return e.send(http.StatusOK, pngType, file)
}

// shrink returns a copy of r whose film is grey and, unless side is 0, resized together
// with the masks so that no side is longer than side pixels. Other measures stay the same.
func shrink(r *predict.Result, side int) (*predict.Result, error) {
	gray := films.Gray(r.Film.Image)
	small := *r
	film := *r.Film
	small.Film = &film
	if longest := max(r.Width, r.Height); side > 0 && longest > side {
		small.Width = max(1, r.Width*side/longest)
		small.Height = max(1, r.Height*side/longest)
		var err error
		if gray, err = resize.Linear(gray, small.Width, small.Height); err != nil {
			return nil, fmt.Errorf("service: %w", err)
		}
		small.Findings = append([]predict.Finding(nil), r.Findings...)
		for i, f := range small.Findings {
			if small.Findings[i].Mask, err = resize.Nearest(f.Mask, small.Width, small.Height); err != nil {
				return nil, fmt.Errorf("service: %w", err)
			}
		}
	}
	film.Image = &picture.Image{Width: small.Width, Height: small.Height, Channels: 1, Pix8: gray.Pix}
	return &small, nil
}

const (
	jsonType = "application/json"
	pngType  = "image/png"
)

// accepted returns the first type of an Accept header that the service can answer with.
func accepted(header string) (string, error) {
	if header == "" {
		return jsonType, nil
	}
	for _, one := range strings.Split(header, ",") {
		name, _, _ := strings.Cut(one, ";")
		switch strings.TrimSpace(name) {
		case jsonType, "application/*", "*/*":
			return jsonType, nil
		case pngType, "image/*":
			return pngType, nil
		}
	}
	return "", fail(http.StatusNotAcceptable, "accept", "Accept is %.80q; there are %s and %s", header, jsonType, pngType)
}
