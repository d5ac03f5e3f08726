package data

import (
	"encoding/json"
	"image"
	"image/color"
	"path/filepath"
	"testing"

	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/stretchr/testify/require"
)

func TestTaskJSON(t *testing.T) {
	for text, task := range map[string]Task{
		`{"classes":["background","pneumothorax"],"channels":1,"output":"softmax","masks":"exact"}`: Binary("pneumothorax"),
		`{"classes":["ground","a","b"],"channels":3,"output":"sigmoid","masks":"exact","ignore":true}`: {
			Classes: []string{"ground", "a", "b"}, Channels: 3, Output: Sigmoid, Ignore: true},
		`{"classes":["ground","a"],"channels":1,"output":"softmax","masks":"white_only"}`: {
			Classes: []string{"ground", "a"}, Channels: 1, Masks: WhiteOnly},
	} {
		require.NoError(t, task.Check())
		b, err := json.Marshal(task)
		require.NoError(t, err)
		require.Equal(t, text, string(b))
		var back Task
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, task, back)
	}
	var task Task
	require.ErrorContains(t, json.Unmarshal([]byte(`{"output":"argmax"}`), &task), `output "argmax"; wanted softmax or sigmoid`)
}

func TestTaskCheck(t *testing.T) {
	for want, task := range map[string]Task{
		"0 classes":              {Channels: 1},
		"1 classes":              {Classes: []string{"a"}, Channels: 1},
		"256 classes":            {Classes: make([]string, 256), Channels: 1},
		`class 1 has the name "`: {Classes: []string{"a", ""}, Channels: 1},
		`"b\n"`:                  {Classes: []string{"a", "b\n"}, Channels: 1},
		"both called a":          {Classes: []string{"a", "b", "a"}, Channels: 1},
		"0 channels":             {Classes: []string{"a", "b"}},
		"mask rule white_only":   {Classes: []string{"a", "b", "c"}, Channels: 1, Masks: WhiteOnly},
		"ignore true":            {Classes: []string{"a", "b"}, Channels: 1, Masks: WhiteOnly, Ignore: true},
		"output 2":               {Classes: []string{"a", "b"}, Channels: 1, Output: 2},
		"mask rule -1":           {Classes: []string{"a", "b"}, Channels: 1, Masks: -1},
	} {
		require.ErrorContains(t, task.Check(), want)
	}
	three := Task{Classes: []string{"g", "a", "b"}, Channels: 1}
	require.Equal(t, 3, three.Outputs())
	three.Output = Sigmoid
	require.Equal(t, 2, three.Outputs())
}

func TestTargets(t *testing.T) {
	two := Binary("mask")
	white, ignore := two, two
	white.Masks, ignore.Ignore = WhiteOnly, true
	three := Task{Classes: []string{"g", "a", "b"}, Channels: 1}
	for _, c := range []struct {
		task Task
		mask []uint8
		want []uint8 // nil for an error that names the values
		text string
	}{
		{two, []uint8{0, 255, 0}, []uint8{0, 1, 0}, ""},
		{two, []uint8{0, 1, 0}, []uint8{0, 1, 0}, ""},
		{two, []uint8{0, 0}, []uint8{0, 0}, ""},
		{two, []uint8{255}, []uint8{1}, ""},
		{two, []uint8{0, 2}, nil, "values 0, 2"},
		{two, []uint8{0, 128}, nil, "values 0, 128"},
		{two, []uint8{0, 1, 255}, nil, "values 0, 1, 255"},
		{two, []uint8{7, 8, 9, 255, 0}, nil, "values 0, 7-9, 255"},
		// fastai divides the bytes by 255 and truncates.
		{white, []uint8{0, 1, 128, 254, 255, 191}, []uint8{0, 0, 0, 0, 1, 0}, ""},
		{ignore, []uint8{0, 1, 255}, []uint8{0, 1, Ignored}, ""},
		{three, []uint8{2, 1, 0, 2}, []uint8{2, 1, 0, 2}, ""},
		{three, []uint8{2, 1, 0, 3}, nil, "values 0-3"},
		{three, []uint8{0, 255}, nil, "values 0, 255; a mask of g, a, b has 0 to 2"},
	} {
		mask := append([]uint8{}, c.mask...)
		err := c.task.Targets(mask)
		if c.want == nil {
			require.ErrorContains(t, err, c.text)
			require.Equal(t, c.mask, mask)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, mask)
	}
}

func TestValueSet(t *testing.T) {
	for _, text := range []string{"", "0", "0 1", "0-2", "0 64 128-130 254 255"} {
		s, ok := decodeValues(text)
		require.True(t, ok, text)
		require.Equal(t, text, s.encode())
	}
	for _, text := range []string{"1 0", "0-1", "256", "-1", "x", "3-1", "0  1", "1x"} {
		_, ok := decodeValues(text)
		require.False(t, ok, text)
	}
}

// Palette, grey and colour files of three classes, 16 bits and colours, with names
// in a file.
func TestOpenClasses(t *testing.T) {
	dir := t.TempDir()
	sketch.WriteText(t, "\xef\xbb\xbfground\r\n\r\nlung\r\nheart\r\n", dir, ClassesFile)
	deep := image.NewGray16(image.Rect(0, 0, 5, 3))
	deep.SetGray16(4, 0, color.Gray16{Y: 0x1234})
	coloured := image.NewRGBA(deep.Rect)
	for i := range 15 {
		coloured.Set(i%5, i/5, color.RGBA{uint8(i), uint8(10 * i), uint8(255 - i), 255})
	}
	sketch.WritePNG(t, deep, dir, TrainDir, "a.png")
	sketch.WritePNG(t, coloured, dir, TrainDir, "b.png")
	classes := []uint8{0, 1, 2, 2, 0, 0, 0, 0, 0, 1, 1, 0, 2, 0, 0}
	palette := image.NewPaletted(deep.Rect, color.Palette{color.White, color.RGBA{200, 0, 0, 255}, color.Black})
	copy(palette.Pix, classes)
	grey := image.NewGray(deep.Rect)
	copy(grey.Pix, classes)
	sketch.WritePNG(t, palette, dir, MasksDir, "a.png")
	sketch.WritePNG(t, grey, dir, MasksDir, "b.png")

	for range 2 {
		d, err := Open(dir, &Options{Multiple: 1})
		require.NoError(t, err)
		require.Equal(t, []string{"ground", "lung", "heart"}, d.Task.Classes)
		require.Equal(t, []string{"1 image has colours, which become grey, as the task has one channel: train/b.png"}, d.Warnings)
		for i := range d.Train {
			img, mask, err := d.Train[i].Load(d.Task)
			require.NoError(t, err)
			require.Equal(t, classes, mask)
			require.Equal(t, []int{1, 16 - 8*i}, []int{img.Channels, img.Bits()})
		}
	}
	d, err := Open(dir, &Options{Multiple: 1, Task: Task{Channels: 3}})
	require.NoError(t, err)
	require.Empty(t, d.Warnings)
	img, _, err := d.Train[1].Load(d.Task)
	require.NoError(t, err)
	require.Equal(t, []uint8{7, 70, 248}, []uint8{img.Pix8[7], img.Pix8[15+7], img.Pix8[30+7]}) // planes
	img, _, err = d.Train[0].Load(d.Task)
	require.NoError(t, err)
	require.Equal(t, []uint16{0x1234, 0x1234, 0x1234}, []uint16{img.Pix16[4], img.Pix16[15+4], img.Pix16[30+4]})
	r, err := Check(d, nil)
	require.NoError(t, err)
	require.Equal(t, []int{0, 2, 2}, r.With)
	// Of red: 0 to 14 of 255, and the one grey value.
	require.InDelta(t, (105.0/255+float64(0x1234)/65535)/30, r.Mean[0], 1e-12)

	_, err = Open(dir, &Options{Multiple: 1, Task: Binary("lung")})
	require.ErrorContains(t, err, "the task has the classes background, lung, but "+filepath.Join(dir, ClassesFile))
	_, err = Open(dir, &Options{Multiple: 1, Task: Task{Channels: 4}})
	require.ErrorContains(t, err, "the task has 4 channels")
}

func TestReadClassesErrors(t *testing.T) {
	for text, want := range map[string]string{
		"\xff\xfea\x00": "UTF-16", "a\x00b": "not a text file", "a\na\n": "both called a", "": "0 classes",
	} {
		_, err := ReadClasses(sketch.WriteText(t, text, t.TempDir(), "c.txt"))
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "c.txt")
	}
}

func TestValuesJSON(t *testing.T) {
	for text, v := range map[string]Values{"0.5": {0.5}, "[0.5,0.25,1]": {0.5, 0.25, 1}, "null": nil} {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		require.Equal(t, text, string(b))
		var back Values
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, v, back)
	}
}
