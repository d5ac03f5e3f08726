package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/hcunet/hcunet/internal/atomicfile"
)

// A Page describes a run on one HTML page. NewPage makes it from a [Run].
type Page struct {
	Title    string
	Subtitle string
	Sections []Section
}

// A Section is a part of a page. Its fields are shown in their order; empty
// fields are left out. All text is escaped, so HTML in it has no effect.
type Section struct {
	Heading string
	Numbers []Number // shown large
	Text    string   // an empty line begins a new paragraph
	Tables  []Table
	Images  []Picture
	Log     string // shown in a monospaced font, such as a printed network
	Folded  bool   // hidden until the reader clicks on the heading
}

// A Number is shown large, with its meaning below.
type Number struct {
	Value string // "0.8123"
	Label string
	Note  string // shown smaller
}

// A Table holds text and numbers. Columns of numbers are aligned right, with
// digits of equal width.
type Table struct {
	Caption string
	Header  []string
	Rows    [][]string
	Tall    bool // scrolls within the page on a screen
}

// A Picture is a PNG file that is embedded in the page.
type Picture struct {
	Path    string
	Caption string // "" shows none; screen readers then get the name of the file
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
	"label": func(p Picture) string {
		if p.Caption != "" {
			return p.Caption
		}
		return strings.TrimSuffix(filepath.Base(p.Path), filepath.Ext(p.Path))
	},
	"embed":   embedPNG,
	"columns": columns,
}).Parse(pageText))

// WritePage writes the page to path as one file that contains its pictures. If
// a picture is missing or not PNG, it returns an error and writes nothing.
func WritePage(path string, p Page) error {
	return atomicfile.Write(path, func(w io.Writer) error { return pageTemplate.Execute(w, p) })
}

// An embedded picture is the source and the size of an img element.
type embedded struct {
	Source        template.URL
	Width, Height int
}

func embedPNG(p Picture) (embedded, error) {
	b, err := os.ReadFile(p.Path)
	if err != nil {
		return embedded{}, err
	}
	c, err := png.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return embedded{}, fmt.Errorf("report: %s is not a PNG file: %w", p.Path, err)
	}
	return embedded{template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b)), c.Width, c.Height}, nil
}

// numberLike matches a cell of a column of numbers: a number, with or without a
// unit, a range, or a dash.
var numberLike = regexp.MustCompile(`^(|-|–|[+−-]?[0-9][0-9., ]*(e[+-]?[0-9]+)?( ?(%|mm|px|s|GB|MB))?|[0-9]+(:[0-9]{2})+|[0-9.]+ ?(–|to) ?[0-9.]+)$`)

// longText is the number of letters from which on the text of a column may be
// wrapped.
const longText = 26

// columns returns the CSS class of the cells of each column: "n" for numbers, "w"
// for long text that may be wrapped.
func columns(t Table) []string {
	width := len(t.Header)
	for _, r := range t.Rows {
		width = max(width, len(r))
	}
	out := make([]string, width)
	for i := range out {
		numbers, longest := len(t.Rows) > 0, 0
		for _, r := range t.Rows {
			if i < len(r) {
				numbers = numbers && numberLike.MatchString(r[i])
				longest = max(longest, utf8.RuneCountInString(r[i]))
			}
		}
		switch {
		case numbers:
			out[i] = "n"
		case longest >= longText:
			out[i] = "w"
		}
	}
	return out
}
