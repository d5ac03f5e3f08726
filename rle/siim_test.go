package rle

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"image"
	"image/png"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/internal/golden"
)

// officialRows returns the EncodedPixels of a training CSV by image.
func officialRows(t testing.TB, name string) (ids []string, rows map[string][]string) {
	t.Helper()
	file, err := os.ReadFile(golden.Path(t, name))
	require.NoError(t, err)
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader(file))
		require.NoError(t, err)
		var plain bytes.Buffer
		_, err = plain.ReadFrom(z)
		require.NoError(t, err)
		file = plain.Bytes()
	}
	rows = map[string][]string{}
	lines := bufio.NewScanner(bytes.NewReader(file))
	lines.Buffer(nil, 1<<20)
	lines.Scan() // the header
	for lines.Scan() {
		id, runs, ok := strings.Cut(lines.Text(), ",")
		require.True(t, ok)
		if rows[id] == nil {
			ids = append(ids, id)
		}
		rows[id] = append(rows[id], runs)
	}
	require.NoError(t, lines.Err())
	return ids, rows
}

// Decoding and encoding a real row gives the same text.
func TestRoundTripOfTheOfficialRows(t *testing.T) {
	_, rows := officialRows(t, "data/siim-csv/train-rle.csv.gz")
	n := 0
	mask := make([]uint8, 1024*1024)
	for id, texts := range rows {
		for _, s := range texts {
			n++
			clear(mask)
			require.NoError(t, DecodeInto(mask, s, 1024, 1024, nil), id)
			require.Equal(t, s, EncodePixels(mask, 1024, 1024, nil), id)
		}
	}
	assert.Equal(t, 10814, n)
}

func TestOfficialMasks(t *testing.T) {
	ids, rows := officialRows(t, "data/siim/train-rle.csv")
	require.Len(t, ids, 11)
	for _, id := range ids {
		mask := image.NewGray(image.Rect(0, 0, 1024, 1024))
		for _, s := range rows[id] {
			require.NoError(t, DecodeInto(mask.Pix, s, 1024, 1024, nil))
		}
		assert.Equal(t, readPNG(t, "data/siim/masks/"+id+".png").Pix, mask.Pix, id)
	}
}

// This mask was published with its axes swapped: the official runs give it if
// they are read row by row, but not if they are read down the columns, as is
// right.
func TestATransposedMaskIsNoticed(t *testing.T) {
	const id = "1.2.276.0.7230010.3.1.4.8323329.10005.1517875220.958951"
	_, rows := officialRows(t, "data/siim/train-rle.csv")
	wrong := readPNG(t, "data/siim/extra/transposed_mask_of_10005.png")
	require.Len(t, rows[id], 1)

	right, err := Decode(rows[id][0], 1024, 1024, nil)
	require.NoError(t, err)
	assert.NotEqual(t, right.Pix, wrong.Pix)
	assert.NotEqual(t, strings.TrimSpace(rows[id][0]), Encode(wrong, nil))

	swapped, err := Decode(rows[id][0], 1024, 1024, &Options{Order: RowMajor})
	require.NoError(t, err)
	assert.Equal(t, swapped.Pix, wrong.Pix)
}

func readPNG(t *testing.T, name string) *image.Gray {
	t.Helper()
	f, err := os.Open(golden.Path(t, name))
	require.NoError(t, err)
	defer f.Close()
	m, err := png.Decode(f)
	require.NoError(t, err)
	require.IsType(t, &image.Gray{}, m)
	return m.(*image.Gray)
}
