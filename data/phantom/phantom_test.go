package phantom

import (
	"bytes"
	"context"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/data/dicom"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/stretchr/testify/require"
)

func white(m *image.Gray) int { return bytes.Count(m.Pix, []byte{255}) }

func TestDraw(t *testing.T) {
	a, again, other, seed := Draw(7, 3), Draw(7, 3), Draw(7, 4), Draw(8, 3)
	require.Equal(t, a, again)
	require.NotEqual(t, a.Image.Pix, other.Image.Pix)
	require.NotEqual(t, a.Image.Pix, seed.Image.Pix)
	require.Equal(t, "phantom-7-00003", a.Name)
	require.True(t, Is(a.Name))
	require.False(t, Is("0_test_1_.dcm"))
	require.Equal(t, "PHANTOM-7-00003", a.Patient)
	require.Equal(t, image.Rect(0, 0, Size, Size), a.Image.Rect)
	require.Equal(t, a.Image.Rect, a.Mask.Rect)
	require.Panics(t, func() { Draw(7, -1) })

	// The tenth film is the ninth patient's second: the same body, another film.
	i, j := Draw(7, 8), Draw(7, 9)
	require.Equal(t, i.Patient, j.Patient)
	require.Equal(t, []any{i.Age, i.Sex}, []any{j.Age, j.Sex})
	require.NotEqual(t, i.Image.Pix, j.Image.Pix)
}

func TestPositive(t *testing.T) {
	for _, seed := range []uint64{0, 1, 2019} {
		orders := map[string]bool{}
		for block := range 20 {
			n, order := 0, ""
			for i := range 8 {
				if Positive(seed, 8*block+i) {
					n++
					order += string(rune('0' + i))
				}
			}
			require.Equal(t, 2, n)
			orders[order] = true
		}
		require.Greater(t, len(orders), 5) // not always the same two
	}
}

// A pneumothorax must be visible: darker than the same place in the other lung,
// and large enough to remain in a small picture.
func TestMasks(t *testing.T) {
	if testing.Short() {
		t.Skip("draws 64 films")
	}
	darker, n := 0, 0
	for i := range 64 {
		c := Draw(2019, i)
		area := float64(white(c.Mask)) / (Size * Size)
		if !Positive(2019, i) {
			require.Zero(t, area)
			require.Zero(t, bytes.Count(c.Mask.Pix, []byte{255}))
			continue
		}
		require.Greater(t, area, 0.012, c.Name)
		require.Less(t, area, 0.13, c.Name)
		require.Equal(t, Size*Size, white(c.Mask)+bytes.Count(c.Mask.Pix, []byte{0}))
		var here, there, pixels int
		for k, v := range c.Mask.Pix {
			if v == 255 {
				here += int(c.Image.Pix[k])
				there += int(c.Image.Pix[k/Size*Size+Size-1-k%Size])
				pixels++
			}
		}
		if here < there-10*pixels {
			darker++
		}
		n++
	}
	require.Equal(t, 16, n)
	require.GreaterOrEqual(t, darker, 14) // a crooked body is no mirror
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "phantom")
	steps := 0
	sum, err := Write(context.Background(), dir, &Options{Train: 16, Test: 2, Seed: 5, Progress: func(done, total int) {
		steps++
		require.Equal(t, []int{steps, 18}, []int{done, total})
	}})
	require.NoError(t, err)
	require.Equal(t, &Summary{Train: 16, Test: 2, Positive: 4}, sum)
	require.Equal(t, 18, steps)

	readme, err := os.ReadFile(filepath.Join(dir, ReadmeFile))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(readme), "PHANTOMS - NOT PATIENTS"))
	runs, err := os.ReadFile(filepath.Join(dir, TrainRuns))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(runs), "ImageId, EncodedPixels\nphantom-5-00000, "))

	table, err := maskcsv.Open(filepath.Join(dir, TrainRuns), &maskcsv.Options{Width: Size, Height: Size})
	require.NoError(t, err)
	require.Empty(t, table.Warnings)
	require.Len(t, table.IDs, 16)
	uids := map[string]bool{}
	twice := 0
	for i := range 18 {
		c := Draw(5, i)
		sub := TrainDir
		if i >= 16 {
			sub = TestDir
		}
		film, err := dicom.Open(filepath.Join(dir, sub, c.Name+".dcm"), nil)
		require.NoError(t, err)
		require.Equal(t, c.Patient, film.PatientID)
		require.Equal(t, []string{"SYN", "PHANTOM"}, []string{film.ConversionType, film.BodyPart})
		require.Equal(t, dicom.JPEGBaseline, film.Syntax)
		age, ok := film.AgeYears()
		require.True(t, ok)
		require.Equal(t, float64(c.Age), age)
		for _, u := range []string{film.SOPInstanceUID, film.StudyUID, film.SeriesUID} {
			require.False(t, uids[u])
			uids[u] = true
		}
		worst := 0
		for k, v := range film.Pix8 {
			worst = max(worst, int(v)-int(c.Image.Pix[k]), int(c.Image.Pix[k])-int(v))
		}
		require.Less(t, worst, 24) // JPEG of quality 95, at the burnt-in letters
		if i >= 16 {
			continue
		}
		mask, err := table.Mask(c.Name, Size, Size)
		require.NoError(t, err)
		require.Equal(t, c.Mask.Pix, mask.Pix)
		if rows := table.Rows(c.Name); len(rows) == 2 {
			twice++
			// Their runs overlap: together they count more pixels than the mask has.
			a, err := maskcsv.Read(strings.NewReader("x,"+rows[0].Runs+"\n"), nil)
			require.NoError(t, err)
			b, err := maskcsv.Read(strings.NewReader("x,"+rows[1].Runs+"\n"), nil)
			require.NoError(t, err)
			upper, err := a.Mask("x", Size, Size)
			require.NoError(t, err)
			lower, err := b.Mask("x", Size, Size)
			require.NoError(t, err)
			require.Greater(t, white(upper)+white(lower), white(c.Mask))
			require.Less(t, white(upper), white(c.Mask))
			require.Less(t, white(lower), white(c.Mask))
		}
	}
	require.Positive(t, twice)

	_, err = Write(context.Background(), dir, nil)
	require.ErrorContains(t, err, "is not empty; choose another")
}

func TestWriteErrors(t *testing.T) {
	for _, o := range []Options{{Train: -1}, {Test: -1}, {Train: 99999, Test: 1}} {
		dir := filepath.Join(t.TempDir(), "p")
		_, err := Write(context.Background(), dir, &o)
		require.ErrorContains(t, err, "wanted at least one training film and at most 99999")
		require.NoDirExists(t, dir)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Write(ctx, filepath.Join(t.TempDir(), "p"), nil)
	require.ErrorIs(t, err, context.Canceled)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	_, err = Write(context.Background(), file, nil)
	require.Error(t, err)
}

func BenchmarkDraw(b *testing.B) {
	for i := 0; b.Loop(); i++ {
		Draw(2019, i)
	}
}
