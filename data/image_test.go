package data

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/stretchr/testify/require"
)

func encodePNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, img))
	return b.Bytes()
}

// The expected values are Pillow's convert("L") of the same colours:
//
//	>>> from PIL import Image; Image.new("RGB", (1, 1), (200, 100, 50)).convert("L").getpixel((0, 0))
//	124
//
// and likewise (10, 250, 90) -> 160, (0, 0, 255) -> 29, (255, 255, 255) -> 255.
func TestReadImageKinds(t *testing.T) {
	colours := []color.NRGBA{{200, 100, 50, 255}, {10, 250, 90, 255}, {0, 0, 255, 255}, {255, 255, 255, 255}, {0, 0, 0, 255}, {7, 7, 7, 255}}
	want := []uint8{124, 160, 29, 255, 0, 7}
	fill := func(img draw.Image, alpha uint8) image.Image {
		for i, c := range colours {
			c.A = alpha
			img.Set(i%3, i/3, c)
		}
		return img
	}
	r := image.Rect(0, 0, 3, 2)
	palette := color.Palette{}
	for _, c := range colours {
		palette = append(palette, c)
	}
	grey8 := image.NewGray(r)
	copy(grey8.Pix, want)
	grey16 := image.NewGray16(r)
	for i, v := range want {
		grey16.SetGray16(i%3, i/3, color.Gray16{Y: uint16(v)<<8 | uint16(17*i)})
	}
	for _, c := range []struct {
		name string
		img  image.Image
		want []uint8
	}{
		{"grey", grey8, want},
		{"grey 16", grey16, want},
		{"RGB", fill(image.NewRGBA(r), 255), want},
		{"RGBA, half transparent", fill(image.NewNRGBA(r), 128), want},
		{"RGBA, all transparent", fill(image.NewNRGBA(r), 0), want},
		{"RGB 16", fill(image.NewRGBA64(r), 255), want},
		{"RGBA 16, half transparent", fill(image.NewNRGBA64(r), 128), want},
		{"palette", fill(image.NewPaletted(r, palette), 255), want},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ReadImage(bytes.NewReader(encodePNG(t, c.img)), nil)
			require.NoError(t, err)
			require.Equal(t, r, got.Rect)
			require.Equal(t, c.want, got.Pix)
		})
	}
}

func TestReadImageJPEG(t *testing.T) {
	// A colour JPEG gives its luma channel, a grey one its only one.
	colour := image.NewRGBA(image.Rect(0, 0, 32, 16))
	draw.Draw(colour, colour.Rect, image.NewUniform(color.NRGBA{200, 100, 50, 255}), image.Point{}, draw.Src)
	for _, img := range []image.Image{colour, greyBlocks(32, 16, 124, 124)} {
		var b bytes.Buffer
		require.NoError(t, jpeg.Encode(&b, img, nil))
		got, err := ReadImage(&b, nil)
		require.NoError(t, err)
		require.Equal(t, image.Rect(0, 0, 32, 16), got.Rect)
		for _, v := range got.Pix {
			require.InDelta(t, 124, int(v), 1) // quantization of the mean of a block
		}
	}
}

// A JPEG gives the very bytes of libjpeg, whose hashes and whose origin
// internal/jpeg/testdata/make.py tells.
func TestReadImageJPEGExact(t *testing.T) {
	const luma = "af018222f5f136bc8a8d4fbb21e05830"
	for name, want := range map[string]string{
		"grey":                   "649fce038f49aa7a401be9f9f29476c7",
		"grey_progressive":       "70ee258fd0276454e45c0675c61f9def",
		"colour_444":             luma,
		"colour_422":             luma,
		"colour_420":             luma,
		"colour_420_progressive": "e8f30134886fb76a381993ae2d089f86",
	} {
		img, err := OpenImage(jpegFile(name), nil)
		require.NoError(t, err)
		require.Equal(t, image.Rect(0, 0, 37, 29), img.Rect)
		require.Equal(t, want, hash32(img.Pix), name)
	}
}

func jpegFile(name string) string {
	return filepath.Join("internal", "jpeg", "testdata", name+".jpg")
}

// What the exact decoder refuses the standard library reads, or finds words for.
func TestReadImageJPEGOtherwise(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, jpeg.Encode(&b, greyBlocks(32, 16, 100, 100), nil))
	file := b.Bytes()
	frame, scan := bytes.Index(file, []byte("\xff\xc0")), bytes.Index(file, []byte("\xff\xda"))
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	other := func(at int, with ...byte) []byte {
		out := bytes.Clone(file)
		copy(out[at:], with)
		return out
	}
	// Four components in a scan each, all with the same data. Adobe's are stored
	// inverted, so that 100 is an ink of 155, and black lies over each of the others.
	cmyk := join(file[:frame], []byte("\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"), []byte("\xff\xc0\x00\x14\x08\x00\x10\x00\x20\x04\x01\x11\x00\x02\x11\x00\x03\x11\x00\x04\x11\x00"), file[frame+13:scan])
	for i := range 4 {
		part := bytes.Clone(file[scan : len(file)-2])
		part[5] = byte(i + 1)
		cmyk = append(cmyk, part...)
	}
	cmyk = append(cmyk, 0xff, 0xd9)
	for _, c := range []struct {
		name string
		file []byte
		want int
	}{
		{"CMYK", cmyk, 100 * 100 / 255},
		{"stray bytes before a marker", join(file[:frame], []byte("xyz"), file[frame:]), 100},
		{"stray bytes before the end", join(file[:len(file)-2], []byte("xyz"), file[len(file)-2:]), 100},
		{"bytes after the end", join(file, []byte("xyz")), 100},
	} {
		img, err := ReadImage(bytes.NewReader(c.file), nil)
		require.NoError(t, err, c.name)
		require.Equal(t, image.Rect(0, 0, 32, 16), img.Rect, c.name)
		for _, v := range img.Pix {
			require.InDelta(t, c.want, int(v), 1, c.name)
		}
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"12 bits", other(frame+4, 12), "precision"},
		{"arithmetic", other(frame+1, 0xc9), "unknown marker"},
		{"lossless", other(frame+1, 0xc3), "unknown marker"},
		{"without its end", file[:len(file)-2], "cut short"},
	} {
		_, err := ReadImage(bytes.NewReader(c.file), nil)
		require.ErrorContains(t, err, c.want, c.name)
	}
	_, err := ReadImage(bytes.NewReader(file), &ImageOptions{MaxPixels: 511})
	require.ErrorContains(t, err, "32x16 pixels; at most 511")
}

func TestReadImageStretch(t *testing.T) {
	// 12-bit values in a 16-bit file.
	img := image.NewGray16(image.Rect(0, 0, 4, 1))
	for x, v := range []uint16{100, 1100, 2100, 4100} {
		img.SetGray16(x, 0, color.Gray16{Y: v})
	}
	b := encodePNG(t, img)
	plain, err := ReadImage(bytes.NewReader(b), nil)
	require.NoError(t, err)
	require.Equal(t, []uint8{0, 4, 8, 16}, plain.Pix)
	stretched, err := ReadImage(bytes.NewReader(b), &ImageOptions{Stretch: true})
	require.NoError(t, err)
	require.Equal(t, []uint8{0, 64, 128, 255}, stretched.Pix)
}

// greyBlocks returns a picture whose left half is a and whose right half is b.
func greyBlocks(w, h int, a, b uint8) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = a
		if i%w >= w/2 {
			img.Pix[i] = b
		}
	}
	return img
}

// exif returns a TIFF block with an orientation among other tags.
func exif(order binary.AppendByteOrder, orientation int) []byte {
	b := []byte("II*\x00")
	if order == binary.AppendByteOrder(binary.BigEndian) {
		b = []byte("MM\x00*")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 2)
	b = append(order.AppendUint32(order.AppendUint16(order.AppendUint16(b, 0x0100), 4), 1), 0, 0, 0, 9) // ImageWidth, a LONG
	b = order.AppendUint32(order.AppendUint16(order.AppendUint16(b, 0x0112), 3), 1)
	b = order.AppendUint16(b, uint16(orientation))
	return append(b, 0, 0, 0, 0, 0, 0)
}

func withEXIF(t testing.TB, img image.Image, kind string, tiff []byte) []byte {
	if kind == "jpeg" {
		var b bytes.Buffer
		require.NoError(t, jpeg.Encode(&b, img, &jpeg.Options{Quality: 100}))
		app1 := append([]byte("\xff\xe1\x00\x00Exif\x00\x00"), tiff...)
		binary.BigEndian.PutUint16(app1[2:], uint16(len(app1)-2))
		return append(append([]byte("\xff\xd8\xff\xe0\x00\x04xx"), app1...), b.Bytes()[2:]...)
	}
	b := encodePNG(t, img)
	chunk := append([]byte("eXIf"), tiff...)
	out := append([]byte{}, b[:33]...) // signature and IHDR
	out = binary.BigEndian.AppendUint32(out, uint32(len(tiff)))
	out = append(out, chunk...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(chunk))
	return append(out, b[33:]...)
}

// The pictures are those that show the eight orientations at a glance: an F as it
// is stored, and how it must come out.
func TestOrientation(t *testing.T) {
	stored := []string{
		"#####",
		"#....",
		"###..",
		"#....",
	}
	want := map[int][]string{
		1: stored,
		2: {"#####", "....#", "..###", "....#"},
		3: {"....#", "..###", "....#", "#####"},
		4: {"#....", "###..", "#....", "#####"},
		5: {"####", "#.#.", "#.#.", "#...", "#..."},
		6: {"####", ".#.#", ".#.#", "...#", "...#"},
		7: {"...#", "...#", ".#.#", ".#.#", "####"},
		8: {"#...", "#...", "#.#.", "#.#.", "####"},
		9: stored, // there is none
	}
	const cell = 8 // a JPEG block, so that black and white stay apart
	img := image.NewGray(image.Rect(0, 0, 5*cell, 4*cell))
	for i := range img.Pix {
		if x, y := i%(5*cell)/cell, i/(5*cell)/cell; stored[y][x] == '#' {
			img.Pix[i] = 255
		}
	}
	for o, rows := range want {
		for _, kind := range []string{"jpeg", "png"} {
			for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
				t.Run(fmt.Sprint(o, " ", kind, " ", order), func(t *testing.T) {
					b := withEXIF(t, img, kind, exif(order, o))
					got, err := ReadImage(bytes.NewReader(b), nil)
					require.NoError(t, err)
					var text []string
					for y := cell / 2; y < got.Rect.Dy(); y += cell {
						line := ""
						for x := cell / 2; x < got.Rect.Dx(); x += cell {
							line += string(".#"[got.GrayAt(x, y).Y/128])
						}
						text = append(text, line)
					}
					require.Equal(t, rows, text)
					as, err := ReadImage(bytes.NewReader(b), &ImageOptions{NoRotate: true})
					require.NoError(t, err)
					require.Equal(t, img.Rect, as.Rect)
				})
			}
		}
	}
}

// Notes that are cut off or lie never lose the picture.
func TestOrientationBroken(t *testing.T) {
	whole := exif(binary.BigEndian, 6)
	for n := range whole {
		require.Contains(t, []int{1, 6}, tiffOrientation(whole[:n]))
	}
	for _, b := range []string{"MM\x00*\xff\xff\xff\xff", "II*\x00\x08\x00\x00\x00\xff\xff", "nonsense"} {
		require.Equal(t, 1, tiffOrientation([]byte(b)))
	}
	for _, b := range []string{"\xff\xd8\xff", "\xff\xd8\xff\xff\xff\xff", "\xff\xd8\xff\xe1\xff\xff", "\xff\xd8\xff\xe1\x00\x00ab", pngHeader, pngHeader + "\xff\xff\xff\xffeXIf"} {
		require.Equal(t, 1, orientation([]byte(b)))
	}
}

func TestReadImageErrors(t *testing.T) {
	sound := encodePNG(t, plain(40, 30, 1))
	bomb := bytes.Clone(sound)
	binary.BigEndian.PutUint32(bomb[16:], 1<<16-1)
	binary.BigEndian.PutUint32(bomb[20:], 1<<10)
	binary.BigEndian.PutUint32(bomb[29:], crc32.ChecksumIEEE(bomb[12:29]))
	for _, c := range []struct {
		name string
		file []byte
		opt  *ImageOptions
		want string
	}{
		{"empty", nil, nil, "not a PNG or JPEG"},
		{"text", []byte("hello, world"), nil, "not a PNG or JPEG"},
		{"GIF", []byte("GIF89a"), nil, "not a PNG or JPEG"},
		{"PNG header only", []byte(pngHeader), nil, "cut short"},
		{"JPEG header only", []byte("\xff\xd8\xff\xe0"), nil, "cut short"},
		{"more pixels than the file can hold", bomb, nil, "65535x1024 pixels, but the file has only"},
		{"more pixels than allowed", sound, &ImageOptions{MaxPixels: 1199}, "40x30 pixels; at most 1199"},
	} {
		_, err := ReadImage(bytes.NewReader(c.file), c.opt)
		require.ErrorContains(t, err, c.want, c.name)
		require.True(t, strings.HasPrefix(err.Error(), "data: "), err.Error())
	}
	_, err := ReadImage(bytes.NewReader(sound), &ImageOptions{MaxPixels: 1200})
	require.NoError(t, err)
	for n := range sound {
		_, err := ReadImage(bytes.NewReader(sound[:n]), nil)
		if n < len(sound)-12 { // what is missing is more than the closing chunk
			require.Error(t, err, n)
		}
	}
	_, err = OpenImage(filepath.Join(t.TempDir(), "none.png"), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadImageTruncatedJPEG(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, jpeg.Encode(&b, plain(40, 30, 1), nil))
	for n := range b.Len() - 2 {
		_, err := ReadImage(bytes.NewReader(b.Bytes()[:n]), nil)
		require.Error(t, err, n)
	}
}

func FuzzReadImage(f *testing.F) {
	f.Add(encodePNG(f, plain(5, 4, 1)))
	f.Add(encodePNG(f, image.NewPaletted(image.Rect(0, 0, 3, 3), color.Palette{color.Black, color.White})))
	f.Add(withEXIF(f, greyBlocks(16, 8, 30, 200), "jpeg", exif(binary.LittleEndian, 6)))
	f.Add(withEXIF(f, greyBlocks(6, 3, 30, 200), "png", exif(binary.BigEndian, 8)))
	for _, name := range []string{"grey_progressive_restart", "colour_420", "colour_420_progressive"} {
		b, err := os.ReadFile(jpegFile(name))
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := ReadImage(bytes.NewReader(b), &ImageOptions{MaxPixels: 1 << 16})
		if err == nil && len(img.Pix) != img.Rect.Dx()*img.Rect.Dy() {
			t.Fatalf("%v has %d pixels", img.Rect, len(img.Pix))
		}
	})
}

func TestFit(t *testing.T) {
	wide := image.NewGray(image.Rect(0, 0, 4, 2))
	for i := range wide.Pix {
		wide.Pix[i] = 200
	}
	got, err := FitImage(wide, 4, 4, Pad)
	require.NoError(t, err)
	require.Equal(t, []uint8{0, 0, 0, 0, 200, 200, 200, 200, 200, 200, 200, 200, 0, 0, 0, 0}, got.Pix)
	got, err = FitImage(wide, 4, 4, Stretch)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{200}, 16), got.Pix)

	// An odd remainder goes below and to the right.
	tall := image.NewGray(image.Rect(0, 0, 2, 5))
	copy(tall.Pix, bytes.Repeat([]byte{9}, 10))
	got, err = FitImage(tall, 5, 5, Pad)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{0, 9, 9, 0, 0}, 5), got.Pix)

	// Image and mask stay together: a mask drawn where the image is bright.
	for _, fit := range []Fit{Stretch, Pad} {
		for _, s := range []image.Point{{100, 60}, {60, 100}, {97, 97}, {33, 200}} {
			img, mask := plain(s.X, s.Y, 0), boxMask(s.X, s.Y, image.Rect(s.X/2, s.Y/4, s.X*3/4, s.Y/2))
			for i, v := range mask.Pix {
				img.Pix[i] = img.Pix[i]/4 + v/4*3
			}
			a, err := FitImage(img, 64, 64, fit)
			require.NoError(t, err)
			b, err := FitMask(mask, 64, 64, fit, Nearest)
			require.NoError(t, err)
			for i, v := range b.Pix {
				require.Contains(t, []uint8{0, 255}, v)
				// The border may lie a pixel off where the one blends and the other does not.
				if x, y := i%64, i/64; v == 255 && x > 0 && y > 0 && x < 63 && y < 63 &&
					b.Pix[i-1]&b.Pix[i+1]&b.Pix[i-64]&b.Pix[i+64] == 255 {
					require.Greater(t, a.Pix[i], uint8(150), "%v %v at %d, %d", fit, s, x, y)
				}
			}
		}
	}
	for _, f := range []func() error{
		func() error { _, err := FitImage(wide, 0, 4, Pad); return err },
		func() error { _, err := FitImage(&image.Gray{}, 4, 4, Stretch); return err },
		func() error { _, err := FitMask(&image.Gray{}, 4, 4, Stretch, Linear); return err },
		func() error { _, err := FitMask(wide, 4, -1, Pad, Nearest); return err },
	} {
		require.ErrorContains(t, f(), "cannot bring")
	}
}

func TestBinarize(t *testing.T) {
	for _, c := range []struct{ in, want []uint8 }{
		{[]uint8{0, 255, 0}, []uint8{0, 255, 0}},
		{[]uint8{0, 1, 0}, []uint8{0, 255, 0}},
		{[]uint8{0, 100, 0}, []uint8{0, 255, 0}},
		{[]uint8{0, 127, 128, 255}, []uint8{0, 0, 255, 255}},
		{[]uint8{0, 0}, []uint8{0, 0}},
		{[]uint8{255, 255}, []uint8{255, 255}},
	} {
		m := &image.Gray{Pix: bytes.Clone(c.in)}
		binarize(m)
		require.Equal(t, c.want, m.Pix)
	}
}

// Every picture of two real collections is read in the size its list says.
func TestOpenImageShared(t *testing.T) {
	for _, set := range []string{"covid-v7", "jsrt"} {
		dir := golden.Path(t, "data/lungs/"+set)
		f, err := os.Open(filepath.Join(dir, "manifest.csv"))
		require.NoError(t, err)
		rows, err := csv.NewReader(f).ReadAll()
		require.NoError(t, err)
		require.NoError(t, f.Close())
		for _, row := range rows[1:] {
			img, err := OpenImage(filepath.Join(dir, "images", row[0]), nil)
			require.NoError(t, err)
			require.Equal(t, row[2]+"x"+row[3], size(img), row[0])
			mask, err := OpenImage(filepath.Join(dir, "masks", row[1]), nil)
			require.NoError(t, err)
			require.Equal(t, img.Rect, mask.Rect, row[0])
			binarize(mask)
			lungs := row[4]
			if set == "covid-v7" {
				lungs = row[6]
			}
			require.Equal(t, lungs, fmt.Sprint(bytes.Count(mask.Pix, []byte{255})), row[0])
		}
	}
}
