package data

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"testing"

	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/stretchr/testify/require"
)

// One film through the preparation alone: what a predictor does.
func TestPreparer(t *testing.T) {
	p := DefaultPreparation()
	p.Size, p.Fit, p.CLAHE = 16, resize.Pad, false
	prepare, err := NewPreparer(p, Binary("x"))
	require.NoError(t, err)
	film, err := prepare.Read(bytes.NewReader(sketch.EncodePNG(t, sketch.Plain(40, 20, 1))))
	require.NoError(t, err)
	made, err := prepare.Image(film)
	require.NoError(t, err)
	require.Equal(t, resize.Geometry{FilmWidth: 40, FilmHeight: 20, Width: 16, Height: 16, Fit: resize.Pad}, made.Geometry)
	want, err := made.Geometry.Image(sketch.Plain(40, 20, 1))
	require.NoError(t, err)
	require.Equal(t, want.Pix, made.Image.Pix8)
	require.Equal(t, int64(256), made.Sums[0].N)

	_, err = prepare.Read(bytes.NewReader(nil))
	require.ErrorContains(t, err, "empty")
	film.Image.Pix8 = film.Image.Pix8[:799]
	_, err = prepare.Image(film)
	require.ErrorContains(t, err, "has 799 values")
	_, _, err = prepare.Mask(&image.Gray{Pix: make([]uint8, 799), Stride: 40, Rect: image.Rect(0, 0, 40, 20)}, made.Geometry)
	require.ErrorContains(t, err, "799 values")

	// 12-bit values in a 16-bit picture are stretched, except with the notebook's
	// preparation.
	deep := image.NewGray16(image.Rect(0, 0, 16, 16))
	for i := range 256 {
		deep.SetGray16(i%16, i/16, color.Gray16{Y: uint16(16 * i)})
	}
	film, err = prepare.Read(bytes.NewReader(sketch.EncodePNG(t, deep)))
	require.NoError(t, err)
	require.Equal(t, uint8(255), film.Image.Pix8[255])
	p.Stretch16 = false
	if prepare, err = NewPreparer(p, Binary("x")); err != nil {
		t.Fatal(err)
	}
	film, err = prepare.Read(bytes.NewReader(sketch.EncodePNG(t, deep)))
	require.NoError(t, err)
	require.Equal(t, uint8(15), film.Image.Pix8[255])
	p.Bits = 16
	if prepare, err = NewPreparer(p, Binary("x")); err != nil {
		t.Fatal(err)
	}
	film, err = prepare.Read(bytes.NewReader(sketch.EncodePNG(t, deep)))
	require.NoError(t, err)
	require.Equal(t, uint16(4080), film.Image.Pix16[255])
}

func TestPreparationCheck(t *testing.T) {
	require.NoError(t, DefaultPreparation().Check(Binary("x")))
	for want, spoil := range map[string]func(*Preparation){
		"size 7":             func(p *Preparation) { p.Size = 7 },
		"images of 12 bits":  func(p *Preparation) { p.Bits = 12 },
		"CLAHE gives images": func(p *Preparation) { p.Bits = 16 },
		"fit 3":              func(p *Preparation) { p.Fit = 3 },
		"mask scaling 9":     func(p *Preparation) { p.MaskScaling = 9 },
		"by 255":             func(p *Preparation) { p.Mean, p.Std = Values{175}, Values{70} },
		"of 2 channels":      func(p *Preparation) { p.Mean, p.Std = Values{0.5, 0.5}, Values{0.2, 0.2} },
	} {
		p := DefaultPreparation()
		spoil(&p)
		require.ErrorContains(t, p.Check(Binary("x")), want)
	}
	p := DefaultPreparation()
	p.Mean, p.Std = Values{0.5}, Values{0.25}
	b, err := json.Marshal(p)
	require.NoError(t, err)
	require.Equal(t, `{"size":256,"fit":"stretch","mask_scaling":"linear","clahe":true,"voi":false,"stretch16":true,"bits":8,"mean":0.5,"std":0.25}`, string(b))
	var back Preparation
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, p, back)
}
