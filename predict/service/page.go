package service

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"github.com/hcunet/hcunet/predict"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS []byte

//go:embed page.js
var pageJS []byte

// policy is the page's Content-Security-Policy: it may load its own files, ask this service
// and show the images of an answer, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page returns the page for a model.
func page(m *predict.Model) ([]byte, error) {
	t, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		Name, Classes string
		Notices       []string
		Card          string
	}{m.Name, strings.Join(m.Task.Classes[1:], ", "), m.Notices(), m.Card()})
	if err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	return b.Bytes(), nil
}

func (s *Service) file(contentType string, body []byte) handler {
	return func(e *exchange) error {
		e.w.Header().Set("Content-Security-Policy", policy)
		e.w.Header().Set("Referrer-Policy", "no-referrer")
		return e.send(http.StatusOK, contentType, body)
	}
}
