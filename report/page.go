package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hcunet/hcunet/internal/atomicfile"
)

// A Page is a run on one HTML page.
type Page struct {
	Title    string
	Sections []Section
}

// A Section of a page; what is empty is left out. Nothing in it is taken for
// HTML.
type Section struct {
	Heading string
	Text    string     // an empty line begins a paragraph
	Header  []string   // of the table
	Rows    [][]string // of the table; numbers are set right
	Images  []string   // paths of PNG files, which go into the page
	Log     string     // in a typewriter's letters, such as the epochs' table
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"paragraphs": func(s string) []string {
		var out []string
		for _, p := range strings.Split(s, "\n\n") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
		return out
	},
	"label": func(path string) string { return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)) },
	"embed": embedPNG,
}).Parse(pageText))

// WritePage writes the page to path, in one file that needs no other: pictures
// are part of it. A picture that is missing or no PNG is an error, and nothing
// is written.
func WritePage(path string, p Page) error {
	return atomicfile.Write(path, func(w io.Writer) error { return pageTemplate.Execute(w, p) })
}

// embedPNG returns a picture as the source of an img element.
func embedPNG(path string) (template.URL, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if !bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")) {
		return "", fmt.Errorf("report: %s is no PNG file", path)
	}
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b)), nil
}
