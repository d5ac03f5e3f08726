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

// A Page is a run on one HTML page. NewPage makes one of a [Run].
type Page struct {
	Title    string
	Subtitle string
	Sections []Section
}

// A Section of a page, in the order of its fields; what is empty is left out.
// Nothing in it is taken for HTML.
type Section struct {
	Heading string
	Numbers []Number // large
	Text    string   // an empty line begins a paragraph
	Tables  []Table
	Images  []Picture
	Log     string // in a typewriter's letters, such as a printed network
	Folded  bool   // shown by a click on the heading
}

// A Number stands large above what it means.
type Number struct {
	Value string // "0.8123"
	Label string
	Note  string // smaller
}

// A Table of text and numbers: a column of numbers is set right, with figures of
// equal width.
type Table struct {
	Caption string
	Header  []string
	Rows    [][]string
	Tall    bool // scrolls within the page on a screen
}

// A Picture is a PNG file that goes into the page.
type Picture struct {
	Path    string
	Caption string // "" shows none; the file's name is for those who cannot see it
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

// WritePage writes the page to path, in one file that needs no other: pictures
// are part of it. A picture that is missing or no PNG is an error, and nothing
// is written.
func WritePage(path string, p Page) error {
	return atomicfile.Write(path, func(w io.Writer) error { return pageTemplate.Execute(w, p) })
}

// An embedded picture is an img element's source and size.
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
		return embedded{}, fmt.Errorf("report: %s is no PNG file: %w", p.Path, err)
	}
	return embedded{template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b)), c.Width, c.Height}, nil
}

// numberLike is what a column of numbers has in its cells: a number, perhaps with
// a unit or a range, or a dash.
var numberLike = regexp.MustCompile(`^(|-|–|[+−-]?[0-9][0-9., ]*(e[+-]?[0-9]+)?( ?(%|mm|px|s|GB|MB))?|[0-9]+(:[0-9]{2})+|[0-9.]+ ?(–|to) ?[0-9.]+)$`)

// longText is how many letters make a column wide enough to be broken.
const longText = 26

// columns returns for each column the class of its cells: "n" for numbers, "w" for
// words and names that may take lines of their own.
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
