package maskcsv

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/rle"
)

// Written by hand: the official header with its space, both ways to say that
// there is no mask, an image of two rows that overlap.
const officialSample = "testdata/csv_official.csv"

// show draws a mask as text.
func show(pix []uint8, width int) (rows []string) {
	text := strings.NewReplacer("\x00", ".", "\xff", "#").Replace(string(pix))
	for ; len(text) > 0; text = text[width:] {
		rows = append(rows, text[:width])
	}
	return rows
}

func TestOpen(t *testing.T) {
	table, err := Open(officialSample, &Options{Width: 4, Height: 3})
	require.NoError(t, err)
	assert.Equal(t, []string{"1.2.840.1", "1.2.840.2", "1.2.840.3", "1.2.840.4"}, table.IDs)
	assert.Empty(t, table.Warnings)

	for id, want := range map[string][]string{
		"1.2.840.1": {"....", "....", "...."},
		"1.2.840.2": {".#..", "##..", "##.."},
		"1.2.840.3": {"....", "....", "...."},
		"1.2.840.4": {"####", "####", "####"},
	} {
		m, err := table.Mask(id, 4, 3)
		require.NoError(t, err)
		assert.Equal(t, want, show(m.Pix, 4), id)
	}
	assert.False(t, table.Positive("1.2.840.1"))
	assert.True(t, table.Positive("1.2.840.2"))
	assert.False(t, table.Positive("unknown"))
	rows := table.Rows("1.2.840.2")
	require.Len(t, rows, 2)
	assert.Equal(t, "1 2 2 1", rows[0].Runs)
	assert.Equal(t, []int{3, 5}, []int{rows[0].Line, rows[1].Line})
	assert.Equal(t, "", table.Rows("1.2.840.1")[0].Runs)
	assert.Nil(t, table.Rows("unknown"))

	_, err = table.Mask("unknown", 4, 3)
	assert.EqualError(t, err, "maskcsv: testdata/csv_official.csv: no row for image unknown")
	_, err = table.Mask("1.2.840.4", 3, 3)
	assert.EqualError(t, err, "maskcsv: testdata/csv_official.csv: line 6, column 13: image 1.2.840.4: rle: at offset 2: run leaves the image: it starts at pixel 0 of 9 (counted from 0) and is longer than 9")
	_, err = table.Mask("1.2.840.4", 0, 3)
	assert.ErrorContains(t, err, "image size")
	_, err = Open("testdata/none.csv", nil)
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open("testdata", nil)
	assert.ErrorContains(t, err, "maskcsv: testdata: ")
}

func TestReadLayouts(t *testing.T) {
	for name, text := range map[string]string{
		"official":          "ImageId, EncodedPixels\na, -1\nb, 1 2\n",
		"no space":          "ImageId,EncodedPixels\na,-1\nb,1 2\n",
		"no header":         "a,-1\nb,1 2\n",
		"no header, blank":  "a,\nb,1 2\n",
		"mark":              "\xef\xbb\xbfImageId,EncodedPixels\na,-1\nb,1 2\n",
		"mark, no header":   "\xef\xbb\xbfa,-1\nb,1 2",
		"CRLF, blank lines": "ImageId, EncodedPixels\r\n\r\na, -1\r\nb, 1 2\r\n\r\n",
		"quotes":            "\"ImageId\", \"EncodedPixels\"\n\"a\", \"-1\"\n\"b\", \"1 2\"\n",
		"other order":       "view,encodedpixels,IMAGEID\nPA,-1,a\nAP,1 2,b\n",
		"spaces":            " ImageId ,  EncodedPixels \n  a , -1 \n b\t,  1 2  \n",
	} {
		table, err := Read(iotest.OneByteReader(strings.NewReader(text)), nil)
		require.NoError(t, err, name)
		assert.Equal(t, []string{"a", "b"}, table.IDs, name)
		assert.Equal(t, "", table.Rows("a")[0].Runs, name)
		assert.Equal(t, "1 2", table.Rows("b")[0].Runs, name)
	}
	table, err := Read(strings.NewReader("id,rle_mask\na,\nb,2 2\n"), &Options{ID: "id", Runs: "rle_mask", RLE: rle.TGS})
	require.NoError(t, err)
	m, err := table.Mask("b", 2, 2)
	require.NoError(t, err)
	assert.Equal(t, []string{".#", "#."}, show(m.Pix, 2))
}

func TestReadErrors(t *testing.T) {
	const head = "ImageId,EncodedPixels\n"
	for _, tc := range []struct{ at, text, want string }{
		{"3:6", head + "a,1 2\nbb,3 -4\n", `image bb: rle: at offset 2: a negative number; "-1" means an empty mask only when it stands alone`},
		{"3:10", head + "a,1 2\nbb,  3 4 5\n", "image bb: rle: at offset 4: a start without a length; want pairs of numbers"},
		{"2:6", head + "a,3 4x\n", "image a: rle: at offset 3: unexpected character 'x'; want digits and spaces"},
		{"2:5", head + "a,3 9999999999999999999999\n", "image a: rle: at offset 2: run leaves the image: it starts at pixel 3 of 100 (counted from 0) and is longer than 97"},
		{"2:6", head + "a,90 11\n", "image a: rle: at offset 3: run leaves the image: it starts at pixel 90 of 100 (counted from 0) and is longer than 10"},
		{"3:1", head + "a,1 2\n,1 2\n", "no image id"},
		{"3:1", head + "a,1 2\n\"b\r\r\nc\",1 2\n", `the image id "b\r\nc" holds a control character or line break`},
		{"3:1", head + "a,1 2\na\n", "a row of 1 fields; want 2, as ImageId,EncodedPixels"},
		{"2:1", head + "a,1 2,3\n", "a row of 3 fields; want 2, as ImageId,EncodedPixels"},
		{"1:1", "id,rle_mask\na,1 2\n", `the first line is neither a header with ImageId and EncodedPixels nor a row of id and runs: "id,rle_mask"`},
		{"1:1", "ImageId,Pixels\na,1 2\n", `the first line is neither a header with ImageId and EncodedPixels nor a row of id and runs: "ImageId,Pixels"`},
		{"1:1", "garbage\n", `the first line is neither a header with ImageId and EncodedPixels nor a row of id and runs: "garbage"`},
		{"2:8", head + "a,\"1 2\n", `extraneous or missing " in quoted-field`},
		{"2:5", head + "a,1 \"2\"\n", `bare " in non-quoted-field`},
		{"1:1", "\xef\xbb\xbfa,1 x\n", `the first line is neither a header with ImageId and EncodedPixels nor a row of id and runs: "a,1 x"`},
	} {
		table, err := Read(strings.NewReader(tc.text), &Options{Width: 10, Height: 10})
		assert.Nil(t, table)
		var row *RowError
		require.True(t, errors.As(err, &row), "%q: %v", tc.text, err)
		assert.EqualError(t, row.Err, tc.want, tc.text)
		assert.Equal(t, tc.at, fmt.Sprintf("%d:%d", row.Line, row.Column), tc.text)
		if strings.Contains(tc.want, "rle:") {
			var syntax *rle.SyntaxError
			assert.True(t, errors.As(err, &syntax), tc.text)
		}
	}

	broken := errors.New("the disk is on fire")
	_, err := Read(io.MultiReader(strings.NewReader(head+"a,1 2\n"), iotest.ErrReader(broken)), nil)
	assert.ErrorIs(t, err, broken)
	for _, opt := range []Options{{Width: 10}, {Width: -1, Height: -1}, {Width: 1 << 30, Height: 1 << 30}, {RLE: rle.Options{Kernel: true}}} {
		_, err = Read(strings.NewReader(head), &opt)
		assert.Error(t, err)
	}
}

func TestReadWarnings(t *testing.T) {
	table, err := Read(strings.NewReader("a,1 2\nb,-1\na,1 2\nb,3 1\nb,\nb,-1\na,2 2\n"), nil)
	require.NoError(t, err)
	var got []string
	for _, w := range table.Warnings {
		got = append(got, w.Error())
	}
	assert.Equal(t, []string{
		"maskcsv: line 3, column 3: image a: the same image and the same runs as an earlier row, line 1",
		"maskcsv: line 4, column 3: image b: the image has a row without runs and one with runs, line 2",
		"maskcsv: line 5, column 3: image b: the same image and the same runs as an earlier row, line 2",
		"maskcsv: line 6, column 3: image b: the same image and the same runs as an earlier row, line 2",
	}, got)
	assert.ErrorIs(t, table.Warnings[0], ErrDuplicateRow)
	assert.ErrorIs(t, table.Warnings[1], ErrEmptyAndNot)
	assert.Len(t, table.Rows("b"), 4)
	assert.True(t, table.Positive("b"))
}

func TestOfficialCSVs(t *testing.T) {
	f, err := os.Open(golden.Path(t, "data/siim-csv/train-rle.csv.gz"))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	table, err := Read(z, &Options{Width: 1024, Height: 1024})
	require.NoError(t, err)
	rows, most, several, positive := 0, 0, 0, 0
	for _, id := range table.IDs {
		n := len(table.Rows(id))
		rows += n
		most = max(most, n)
		if n > 1 {
			several++
		}
		if table.Positive(id) {
			positive++
		}
	}
	// Counted with cut, sort and uniq -c.
	assert.Equal(t, []int{10814, 10042, 10, 531}, []int{rows, len(table.IDs), most, several})
	t.Logf("%d of %d images positive, %d warnings", positive, len(table.IDs), len(table.Warnings))

	for file, images := range map[string]int{"sample_submission_stage1_1372.csv": 1372, "sample_submission_stage2.csv": 3205} {
		table, err := Open(golden.Path(t, "data/siim-csv/"+file), nil)
		require.NoError(t, err)
		assert.Len(t, table.IDs, images, file)

		// Written again, it is the same file.
		var all []Row
		for _, id := range table.IDs {
			all = append(all, table.Rows(id)...)
		}
		var out bytes.Buffer
		require.NoError(t, WriteSubmission(&out, all))
		want, err := os.ReadFile(golden.Path(t, "data/siim-csv/"+file))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, out.Bytes()), file)
	}
}

func TestWriteSubmission(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, WriteSubmission(&out, []Row{{ID: "1.2.3"}, {ID: "1.2.4", Runs: "3 4 1 2"}, {ID: "a,b", Runs: " -1"}}))
	// pd.DataFrame({'ImageId': ..., 'EncodedPixels': ...}).to_csv(index=False)
	assert.Equal(t, "ImageId,EncodedPixels\n1.2.3,-1\n1.2.4,3 4 1 2\n\"a,b\",-1\n", out.String())

	for want, rows := range map[string][]Row{
		`maskcsv: submission: row 1 has the id ""`:                                                         {{ID: "a"}, {}},
		`maskcsv: submission: row 0 has the id " a"`:                                                       {{ID: " a"}},
		`maskcsv: submission: row 0 has the id "a\nb"`:                                                     {{ID: "a\nb"}},
		"maskcsv: submission: image a in rows 0 and 1; want one row per image":                             {{ID: "a"}, {ID: "a"}},
		"maskcsv: submission: image a: rle: at offset 2: a run of length 0":                                {{ID: "a", Runs: "1 0"}},
		"maskcsv: submission: image a: rle: at offset 0: unexpected character 'n'; want digits and spaces": {{ID: "a", Runs: "nan"}},
	} {
		assert.EqualError(t, WriteSubmission(io.Discard, rows), want)
	}
	full := errors.New("no space left")
	assert.ErrorIs(t, WriteSubmission(failing{full}, []Row{{ID: "a"}}), full)
}

func TestSaveSubmission(t *testing.T) {
	path := filepath.Join(t.TempDir(), "submission.csv")
	require.NoError(t, SaveSubmission(path, []Row{{ID: "a", Runs: "1 2"}}))
	assert.Error(t, SaveSubmission(path, []Row{{ID: "a"}, {ID: "a"}}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "ImageId,EncodedPixels\na,1 2\n", string(b), "the failed one left it alone")
	assert.Error(t, SaveSubmission(filepath.Join(path, "x"), nil))
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func FuzzRead(f *testing.F) {
	sample, err := os.ReadFile(filepath.FromSlash(officialSample))
	require.NoError(f, err)
	f.Add(sample)
	f.Add([]byte("\xef\xbb\xbfa,-1\nb,1 2\r\n\"c\", \"3 4\"\n"))
	f.Add([]byte("a,1 2\na,1 2\na,-1\n\n,,"))
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := Read(bytes.NewReader(text), &Options{Width: 30, Height: 20})
		if err != nil {
			return
		}
		// What was read can be drawn. Written as a submission and read again,
		// it gives the same masks.
		var rows []Row
		for _, id := range table.IDs {
			m, err := table.Mask(id, 30, 20)
			if err != nil {
				t.Fatalf("%q was read but does not draw: %v", text, err)
			}
			rows = append(rows, Row{ID: id, Runs: rle.Encode(m, nil)})
		}
		var out bytes.Buffer
		if err := WriteSubmission(&out, rows); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		again, err := Read(&out, nil)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if len(again.IDs) != len(table.IDs) {
			t.Fatalf("%q: ids %q, then %q", text, table.IDs, again.IDs)
		}
		for i, id := range table.IDs {
			if again.IDs[i] != id || strings.TrimSpace(rows[i].Runs) != rle.Encode(must(again.Mask(id, 30, 20)), nil) {
				t.Fatalf("%q: image %q changed", text, id)
			}
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A file that is without rows, in UTF-16 or broken gives an error that says so; a
// gzipped one is read.
func TestReadEncodings(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write([]byte("\xef\xbb\xbfImageId,EncodedPixels\na,1 2\n"))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	file := filepath.Join(t.TempDir(), "rle.csv.gz")
	require.NoError(t, os.WriteFile(file, packed.Bytes(), 0o666))
	table, err := Open(file, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, table.IDs)

	utf16 := func(order binary.AppendByteOrder, text string) (b []byte) {
		for _, r := range text {
			b = order.AppendUint16(b, uint16(r))
		}
		return b
	}
	for want, text := range map[string]string{
		"there is no row with an image and its runs":  "",
		"there is no row with an image and its runs ": "ImageId,EncodedPixels\n",
		"the text is UTF-16; save it as UTF-8":        string(utf16(binary.LittleEndian, "\ufeffImageId,EncodedPixels\na,1 2\n")),
		"the text is UTF-16; save it as UTF-8 ":       string(utf16(binary.BigEndian, "\ufeffImageId,EncodedPixels\na,1 2\n")),
		"the text is UTF-16; save it as UTF-8  ":      string(utf16(binary.LittleEndian, "ImageId,EncodedPixels\na,1 2\n")),
		"not a text file":                             "ImageId\x00",
		"unexpected EOF":                              packed.String()[:packed.Len()-9],
		"gzip: invalid header":                        "\x1f\x8b\x07 xxxxxxxxx",
	} {
		_, err := Read(strings.NewReader(text), nil)
		assert.ErrorContains(t, err, strings.TrimSpace(want))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o666))
		_, err = Open(file, nil)
		assert.ErrorContains(t, err, file)
	}
}
