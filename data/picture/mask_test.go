package picture

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"image"
	"image/color"
	"image/draw"
	"testing"

	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/stretchr/testify/require"
)

// The classes of a mask are read correctly in whatever form they were saved.
func TestReadMask(t *testing.T) {
	r := image.Rect(0, 0, 3, 2)
	classes := []uint8{0, 1, 2, 2, 0, 1}
	palette := image.NewPaletted(r, color.Palette{color.White, color.NRGBA{200, 0, 0, 255}, color.Black})
	copy(palette.Pix, classes)
	grey, deep, colours := image.NewGray(r), image.NewGray16(r), image.NewNRGBA(r)
	copy(grey.Pix, classes)
	for i, v := range classes {
		deep.SetGray16(i%3, i/3, color.Gray16{Y: uint16(v)})
		colours.Set(i%3, i/3, color.NRGBA{v, v, v, 255})
	}
	for name, img := range map[string]image.Image{"palette": palette, "grey": grey, "16 bits": deep, "saved in colours": colours} {
		m, err := ReadMask(bytes.NewReader(sketch.EncodePNG(t, img)), nil)
		require.NoError(t, err, name)
		require.Equal(t, classes, m.Pix, name)
	}

	// In a black and white palette, white is the object, whatever index it has.
	white := image.NewPaletted(r, color.Palette{color.White, color.Black})
	copy(white.Pix, []uint8{0, 1, 1, 1, 1, 0})
	spread := image.NewGray16(r)
	draw.Draw(spread, r, white, image.Point{}, draw.Src)
	for _, img := range []image.Image{white, spread} {
		m, err := ReadMask(bytes.NewReader(sketch.EncodePNG(t, img)), nil)
		require.NoError(t, err)
		require.Equal(t, []uint8{255, 0, 0, 0, 0, 255}, m.Pix)
	}

	colours.Set(1, 1, color.NRGBA{1, 2, 3, 255})
	_, err := ReadMask(bytes.NewReader(sketch.EncodePNG(t, colours)), nil)
	require.EqualError(t, err, "picture: the mask has colours; wanted grey values or a palette, where the value of a pixel is the number of its class")
	deep.SetGray16(1, 1, color.Gray16{Y: 300})
	_, err = ReadMask(bytes.NewReader(sketch.EncodePNG(t, deep)), nil)
	require.ErrorContains(t, err, "16 bits and values above 255")
	_, err = ReadMask(bytes.NewReader(nil), nil)
	require.ErrorContains(t, err, "not a PNG")
}

// The standard library writes no grey of fewer than 8 bits. Of 2 and 4 bits the
// values 0, 1, 2, 3, 0, 1 in a 6x1 picture, of 1 bit 0, 1, 0, 1, 0, 1:
//
//	import base64, struct, zlib
//	def chunk(k, b): return struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b))
//	def png(depth, row): return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 1, depth, 0, 0, 0, 0))
//	    + chunk(b"IDAT", zlib.compress(b"\0" + bytes(row))) + chunk(b"IEND", b""))
//	png(1, [0b01010100]), png(2, [0b00011011, 0b00010000]), png(4, [0x01, 0x23, 0x01])
func TestReadMaskOfFewBits(t *testing.T) {
	for file, want := range map[string][]uint8{
		oneBit:   {0, 255, 0, 255, 0, 255},
		twoBits:  {0, 1, 2, 3, 0, 1},
		fourBits: {0, 1, 2, 3, 0, 1},
	} {
		b, err := base64.StdEncoding.DecodeString(file)
		require.NoError(t, err)
		m, err := ReadMask(bytes.NewReader(b), nil)
		require.NoError(t, err)
		require.Equal(t, want, m.Pix)
	}
}

func TestReadColours(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 2, 3))
	for i := range 6 {
		img.Set(i%2, i/2, color.NRGBA{uint8(i), uint8(10 + i), uint8(20 + i), 255})
	}
	file := sketch.WithEXIF(t, img, "png", sketch.EXIF(binary.BigEndian, 6)) // to be turned to the right
	m, err := Read(bytes.NewReader(file), nil)
	require.NoError(t, err)
	require.NoError(t, m.Check())
	require.Equal(t, []int{3, 2, 3}, []int{m.Width, m.Height, m.Channels})
	require.Equal(t, []uint8{4, 2, 0, 5, 3, 1}, m.Pix8[:6])
	require.Equal(t, []uint8{24, 22, 20, 25, 23, 21}, m.Pix8[12:])
	require.False(t, m.Faded)
	m, err = Read(bytes.NewReader(file), &Options{Channels: 1})
	require.NoError(t, err)
	require.Equal(t, 1, m.Channels)
	require.True(t, m.Faded)
	_, err = Read(bytes.NewReader(file), &Options{Channels: 2})
	require.ErrorContains(t, err, "2 channels were asked for")

	// Written and read again it is the same, with 8 bits and with 16.
	for _, m := range []*Image{
		{Width: 2, Height: 1, Channels: 1, Pix8: []uint8{3, 200}},
		{Width: 2, Height: 1, Channels: 1, Pix16: []uint16{3, 60000}},
		{Width: 2, Height: 1, Channels: 3, Pix8: []uint8{1, 2, 3, 4, 5, 6}},
		{Width: 2, Height: 1, Channels: 3, Pix16: []uint16{1, 2, 3, 4, 5, 60000}},
	} {
		again, err := Read(bytes.NewReader(sketch.EncodePNG(t, m.Picture())), nil)
		require.NoError(t, err)
		require.Equal(t, m, again)
	}
	for want, m := range map[string]Image{
		"has 3 values": {Width: 2, Height: 2, Channels: 1, Pix8: []uint8{1, 2, 3}},
		"0 channels":   {Width: 2, Height: 2},
		"8 and of 16":  {Width: 1, Height: 1, Channels: 1, Pix8: []uint8{1}, Pix16: []uint16{1}},
		"has 1 values": {Width: 1 << 40, Height: 1 << 40, Channels: 1, Pix8: []uint8{1}},
	} {
		require.ErrorContains(t, m.Check(), want)
	}
}

const (
	oneBit   = "iVBORw0KGgoAAAANSUhEUgAAAAYAAAABAQAAAADVsuJdAAAACklEQVR4nGMIAQAAVgBVPBlm1wAAAABJRU5ErkJggg=="
	twoBits  = "iVBORw0KGgoAAAANSUhEUgAAAAYAAAABAgAAAACSEpiNAAAAC0lEQVR4nGOQFgAAAEkALPCsn1sAAAAASUVORK5CYII="
	fourBits = "iVBORw0KGgoAAAANSUhEUgAAAAYAAAABBAAAAAAdUm0tAAAADElEQVR4nGNgVGYEAABOACbX1q+DAAAAAElFTkSuQmCC"
)
