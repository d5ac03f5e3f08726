package data

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/stretchr/testify/require"
)

func TestFileName(t *testing.T) {
	for _, id := range []string{"a", "1.2.840.113", "film 3 (left)", "a..b", "\u00e9"} {
		name, err := FileName(id)
		require.NoError(t, err)
		require.Equal(t, id, name)
	}
	for _, id := range []string{"", ".", "..", "../x", "a/b", `a\b`, ".hidden", "a\nb", "a\x00", "/x", strings.Repeat("x", 201)} {
		_, err := FileName(id)
		require.Error(t, err, id)
	}
}

// The statistics file says how the images were made, and reading what was written
// gives the same.
func TestStatisticsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), StatisticsFile)
	p := DefaultPreparation()
	p.Fit, p.MaskScaling = resize.Pad, resize.MaskNearest
	st := Statistics{Mean: Values{0.5}, Std: Values{0.25}, Films: 3, Size: 256, Made: "so", Preparation: &p}
	require.NoError(t, WriteStatistics(path, st))
	back, err := ReadStatistics(path)
	require.NoError(t, err)
	require.Equal(t, st, back)
	for want, moments := range map[string][2]Values{
		"divide those of bytes by 255": {{175}, {70}}, "2 means and 1": {{0.5, 0.5}, {0.1}}, "0 means": {},
		"mean NaN": {{math.NaN()}, {0.1}}, "deviation 0;": {{0.5}, {0}},
	} {
		require.ErrorContains(t, WriteStatistics(path, Statistics{Mean: moments[0], Std: moments[1]}), want)
	}
}

// A wrong statistics file is a finding, and the report has the right content.
func TestCheckWrongStatistics(t *testing.T) {
	dir := smallDataset(t)
	sketch.WriteText(t, `{"mean":1,"std":0,"preparation":{"size":64,"bits":8}}`, dir, StatisticsFile)
	_, err := Open(dir, nil)
	require.ErrorContains(t, err, "statistics.json")
	d, err := Open(dir, &Options{NoStatistics: true})
	require.NoError(t, err)
	defer d.Close()
	r, err := Check(d, nil)
	require.NoError(t, err)
	require.Equal(t, StatisticsWrong, r.Findings[0].Kind)
	require.NoError(t, WriteStatistics(filepath.Join(dir, StatisticsFile), r.Statistics()))
	again, err := Open(dir, nil)
	require.NoError(t, err)
	defer again.Close()
	require.Equal(t, r.Mean, again.Mean)
	require.Equal(t, &Preparation{Size: 64, Bits: 8, Mean: r.Mean, Std: r.Std}, again.Preparation)
}
