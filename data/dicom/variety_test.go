package dicom_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/dicom/codec"
	"github.com/hcunet/hcunet/internal/golden"
)

var update = flag.Bool("update", false, "rewrite docs/dicom.md and the fuzz seeds")

// A row is the result of a reference decoder (pydicom with GDCM and pylibjpeg)
// for a file.
type row struct {
	file, syntax, sha, err string
	bits                   int
	signed                 bool
	min, max, mean         float64
}

func variety(t testing.TB) []row {
	f, err := os.Open(filepath.Join(golden.Path(t, "data/dicom-variety"), "expected.csv"))
	require.NoError(t, err)
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	col := map[string]int{}
	for i, name := range all[0] {
		col[name] = i
	}
	var rows []row
	for _, r := range all[1:] {
		num := func(name string) float64 {
			v, _ := strconv.ParseFloat(r[col[name]], 64)
			return v
		}
		rows = append(rows, row{
			file: r[col["file"]], syntax: r[col["ts"]], sha: r[col["sha"]], err: r[col["err"]],
			signed: num("PixelRepresentation") == 1,
			min:    num("min"), max: num("max"), mean: num("mean"),
		})
	}
	require.Len(t, rows, 119)
	return rows
}

// broken lists the files that must be a *dicom.FormatError.
var broken = []string{
	"pydicom-testfiles/MR_truncated.dcm",
	"pydicom-testfiles/badVR.dcm", // 1A frames
	"pydicom-testfiles/meta_missing_tsyntax.dcm",
	"pydicom-testfiles/nested_priv_SQ.dcm", // pixels without rows
	"pydicom-testfiles/no_meta.dcm",
	"pydicom-testfiles/rtplan_truncated.dcm",
	"malformed/siim_truncated_half.dcm",
	"malformed/siim_truncated_header.dcm",
	"malformed/siim_bad_magic.dcm",
	"malformed/empty.dcm",
	"malformed/siim_jpeg_flipped_bytes.dcm",
}

// sameAs gives the hash to expect, or the file that has it, where the reference
// has none or a wrong one.
var sameAs = map[string]string{
	// OW of 8 bits, whose words the reference leaves swapped (PS3.5, A.3 and
	// 8.1.1): it reads 141 166 52 ... and a pad byte as a pixel. The little endian
	// file is the same image.
	"pydicom-testfiles/SC_rgb_small_odd_big_endian.dcm": "pydicom-testfiles/SC_rgb_small_odd.dcm",
	// Progressive with 12 bits, which the reference does not decode: the
	// coefficients of the sequential file.
	"cornerstone-ct/CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm": "cornerstone-ct/CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm",
	"cornerstone-ct/CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm":   "cornerstone-ct/CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm",
	// A film of the SIIM set (TestSIIM) without its first 132 bytes.
	"malformed/siim_no_preamble.dcm": "91e50f8d9ac66445b98de28fcea796103523d9a978ca3d427723390f594af6dd",
}

// spoilt is a JPEG 2000 file whose image header was overwritten with a
// delimiter. The reference decoder reads noise; here it is unsupported or
// broken.
const spoilt = "pydicom-testfiles/JPEG2000-embedded-sequence-delimiter.dcm"

var byCodec = []dicom.Syntax{dicom.JPEG2000Lossless, dicom.JPEG2000}

func needsCodec(s string) bool {
	for _, c := range byCodec {
		if s == string(c) {
			return true
		}
	}
	return false
}

// A tally counts the files of a syntax by their results.
type tally struct{ files, same, near, broken, empty int }

// Every file gives exactly the reference's pixels, or, from a lossy syntax,
// pixels within one grey level by their minimum, maximum and mean, or the right
// kind of error.
func TestVariety(t *testing.T) {
	rows := variety(t)
	dir := golden.Path(t, "data/dicom-variety")
	sha := map[string]string{}
	for _, r := range rows {
		sha[r.file] = r.sha
	}
	tallies := map[string]*tally{}
	for _, r := range rows {
		n := tallies[r.syntax]
		if n == nil {
			n = &tally{}
			tallies[r.syntax] = n
		}
		n.files++
		b, err := os.ReadFile(filepath.Join(dir, r.file))
		require.NoError(t, err)
		pix, word, err := dicom.Samples(b)

		want := r.sha
		if other := sameAs[r.file]; other != "" {
			want = cmp.Or(sha[other], other)
		}
		var format *dicom.FormatError
		var unsupported *dicom.UnsupportedError
		switch {
		case contains(broken, r.file) || r.file == spoilt && codec.Enabled:
			assert.ErrorAs(t, err, &format, r.file)
			n.broken++
		case needsCodec(r.syntax) && !codec.Enabled:
			if assert.ErrorAs(t, err, &unsupported, r.file) {
				assert.Equal(t, r.syntax, string(unsupported.Syntax))
			}
		case want == "":
			assert.ErrorIs(t, err, dicom.ErrNoPixels, r.file)
			n.empty++
		default:
			if !assert.NoError(t, err, r.file) {
				continue
			}
			if sum := sha256.Sum256(pix); hex.EncodeToString(sum[:]) == want {
				n.same++
				continue
			}
			n.near++
			lo, hi, mean := statistics(pix, word, r.signed)
			assert.True(t, lossy(r.syntax), "%s: pixels differ", r.file)
			assert.InDelta(t, r.min, lo, 1, "%s: minimum", r.file)
			assert.InDelta(t, r.max, hi, 1, "%s: maximum", r.file)
			assert.InDelta(t, r.mean, mean, 1, "%s: mean", r.file)
		}
		if err != nil {
			film, err2 := dicom.Open(filepath.Join(dir, r.file), nil)
			assert.Nil(t, film)
			assert.ErrorContains(t, err2, filepath.Base(r.file))
			assert.Equal(t, err.Error(), errors.Unwrap(err2).Error())
		}
	}
	checkTable(t, tallies)
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func lossy(syntax string) bool {
	switch dicom.Syntax(syntax) {
	case dicom.JPEGBaseline, dicom.JPEGExtended, dicom.JPEGSpectral, dicom.JPEGProgressive,
		dicom.JPEGLSNearLossless, dicom.JPEG2000:
		return true
	}
	return false
}

func statistics(pix []byte, word int, signed bool) (lo, hi, mean float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for i := 0; i < len(pix); i += word {
		var v int64
		for k := range word {
			v |= int64(pix[i+k]) << (8 * k)
		}
		if signed && v >= 1<<(8*word-1) {
			v -= 1 << (8 * word)
		}
		lo, hi, mean = min(lo, float64(v)), max(hi, float64(v)), mean+float64(v)
	}
	return lo, hi, mean / float64(len(pix)/word)
}

// table is the part of docs/dicom.md that the test writes. Numbers of syntaxes
// that need the codec package are kept when it is not there to count them.
func table(tallies map[string]*tally, old map[string]string) string {
	var b strings.Builder
	b.WriteString("| transfer syntax | UID | read by | real files | same pixels | within 1 level | broken | no image |\n")
	b.WriteString("|---|---|---|--:|--:|--:|--:|--:|\n")
	for _, s := range []dicom.Syntax{
		dicom.ImplicitLittleEndian, dicom.ExplicitLittleEndian, dicom.ExplicitBigEndian, dicom.Deflated,
		dicom.RLELossless, dicom.JPEGBaseline, dicom.JPEGExtended, dicom.JPEGSpectral, dicom.JPEGProgressive,
		dicom.JPEGLossless, dicom.JPEGLosslessSV1,
		dicom.JPEGLSLossless, dicom.JPEGLSNearLossless, dicom.JPEG2000Lossless, dicom.JPEG2000, "",
	} {
		line := old[string(s)]
		if n := tallies[string(s)]; n != nil && (codec.Enabled || !needsCodec(string(s))) {
			by, name := "Go", s.Name()
			if needsCodec(string(s)) {
				by = "codec"
			}
			if s == "" {
				by, name = "", "none in the file, or malformed on purpose"
			}
			line = fmt.Sprintf("| %s | %s | %s | %d | %d | %d | %d | %d |", name, s, by, n.files, n.same, n.near, n.broken, n.empty)
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

func checkTable(t *testing.T, tallies map[string]*tally) {
	const path = "../../docs/dicom.md"
	const begin, end = "<!-- written by go test ./data/dicom -run Variety -tags dicomcodec -update -->\n", "<!-- end -->\n"
	doc, err := os.ReadFile(path)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(doc), begin)
	require.True(t, ok, "%s has lost its marker", path)
	was, tail, ok := strings.Cut(rest, end)
	require.True(t, ok, "%s has lost its end marker", path)
	old := map[string]string{}
	for _, line := range strings.Split(was, "\n") {
		if c := strings.Split(line, "|"); len(c) > 3 {
			old[strings.TrimSpace(c[2])] = line
		}
	}
	now := table(tallies, old)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(head+begin+now+end+tail), 0o644))
		return
	}
	assert.Equal(t, now, was, "%s is out of date: run with -update", path)
}
