package picture

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/data/internal/sketch"
	"github.com/hcunet/hcunet/internal/golden"
	"github.com/stretchr/testify/require"
)

// The expected values are Pillow's convert("L") of the same colours:
//
//	>>> from PIL import Image; Image.new("RGB", (1, 1), (200, 100, 50)).convert("L").getpixel((0, 0))
//	124
//
// and likewise (10, 250, 90) -> 160, (0, 0, 255) -> 29, (255, 255, 255) -> 255.
func TestReadKinds(t *testing.T) {
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
			got, err := ReadGray(bytes.NewReader(sketch.EncodePNG(t, c.img)), nil)
			require.NoError(t, err)
			require.Equal(t, r, got.Rect)
			require.Equal(t, c.want, got.Pix)
		})
	}
}

func TestReadJPEG(t *testing.T) {
	// A colour JPEG gives its luma channel, a grey one its only one.
	colour := image.NewRGBA(image.Rect(0, 0, 32, 16))
	draw.Draw(colour, colour.Rect, image.NewUniform(color.NRGBA{200, 100, 50, 255}), image.Point{}, draw.Src)
	for _, img := range []image.Image{colour, greyBlocks(32, 16, 124, 124)} {
		var b bytes.Buffer
		require.NoError(t, jpeg.Encode(&b, img, nil))
		got, err := ReadGray(&b, nil)
		require.NoError(t, err)
		require.Equal(t, image.Rect(0, 0, 32, 16), got.Rect)
		for _, v := range got.Pix {
			require.InDelta(t, 124, int(v), 1) // quantization of the mean of a block
		}
	}
}

// A JPEG gives exactly the bytes of libjpeg. internal/jpeg/testdata/make.py
// made their hashes.
func TestReadJPEGExact(t *testing.T) {
	const luma = "af018222f5f136bc8a8d4fbb21e05830"
	for name, want := range map[string]string{
		"grey":                   "649fce038f49aa7a401be9f9f29476c7",
		"grey_progressive":       "70ee258fd0276454e45c0675c61f9def",
		"colour_444":             luma,
		"colour_422":             luma,
		"colour_420":             luma,
		"colour_420_progressive": "e8f30134886fb76a381993ae2d089f86",
	} {
		img, err := OpenGray(jpegFile(name), nil)
		require.NoError(t, err)
		require.Equal(t, image.Rect(0, 0, 37, 29), img.Rect)
		require.Equal(t, want, hash32(img.Pix), name)
	}
}

func jpegFile(name string) string {
	return filepath.Join("..", "internal", "jpeg", "testdata", name+".jpg")
}

// What the exact decoder refuses is read by the standard library, or gives its
// error.
func TestReadJPEGOtherwise(t *testing.T) {
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
		img, err := ReadGray(bytes.NewReader(c.file), nil)
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
		_, err := ReadGray(bytes.NewReader(c.file), nil)
		require.ErrorContains(t, err, c.want, c.name)
	}
	_, err := ReadGray(bytes.NewReader(file), &Options{MaxPixels: 511})
	require.ErrorContains(t, err, "32x16 pixels; at most 511")
}

func TestReadStretch(t *testing.T) {
	// 12-bit values in a 16-bit file.
	img := image.NewGray16(image.Rect(0, 0, 4, 1))
	for x, v := range []uint16{100, 1100, 2100, 4100} {
		img.SetGray16(x, 0, color.Gray16{Y: v})
	}
	b := sketch.EncodePNG(t, img)
	plain, err := ReadGray(bytes.NewReader(b), nil)
	require.NoError(t, err)
	require.Equal(t, []uint8{0, 4, 8, 16}, plain.Pix)
	stretched, err := ReadGray(bytes.NewReader(b), &Options{Stretch: true})
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
					b := sketch.WithEXIF(t, img, kind, sketch.EXIF(order, o))
					got, err := ReadGray(bytes.NewReader(b), nil)
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
					as, err := ReadGray(bytes.NewReader(b), &Options{NoRotate: true})
					require.NoError(t, err)
					require.Equal(t, img.Rect, as.Rect)
				})
			}
		}
	}
}

// A picture with truncated or wrong EXIF data is still read.
func TestOrientationBroken(t *testing.T) {
	whole := sketch.EXIF(binary.BigEndian, 6)
	for n := range whole {
		require.Contains(t, []int{1, 6}, tiffOrientation(whole[:n]))
	}
	for _, b := range []string{"MM\x00*\xff\xff\xff\xff", "II*\x00\x08\x00\x00\x00\xff\xff", "nonsense"} {
		require.Equal(t, 1, tiffOrientation([]byte(b)))
	}
	for _, b := range []string{"\xff\xd8\xff", "\xff\xd8\xff\xff\xff\xff", "\xff\xd8\xff\xe1\xff\xff", "\xff\xd8\xff\xe1\x00\x00ab", pngHeader, pngHeader + "\xff\xff\xff\xffeXIf"} {
		require.Equal(t, 1, Orientation([]byte(b)))
	}
}

func TestReadErrors(t *testing.T) {
	sound := sketch.EncodePNG(t, sketch.Plain(40, 30, 1))
	bomb := bytes.Clone(sound)
	binary.BigEndian.PutUint32(bomb[16:], 1<<16-1)
	binary.BigEndian.PutUint32(bomb[20:], 1<<10)
	binary.BigEndian.PutUint32(bomb[29:], crc32.ChecksumIEEE(bomb[12:29]))
	for _, c := range []struct {
		name string
		file []byte
		opt  *Options
		want string
	}{
		{"empty", nil, nil, "not a PNG or JPEG"},
		{"text", []byte("hello, world"), nil, "not a PNG or JPEG"},
		{"GIF", []byte("GIF89a"), nil, "not a PNG or JPEG"},
		{"PNG header only", []byte(pngHeader), nil, "cut short"},
		{"JPEG header only", []byte("\xff\xd8\xff\xe0"), nil, "cut short"},
		{"more pixels than the file can hold", bomb, nil, "65535x1024 pixels, but the file has only"},
		{"more pixels than allowed", sound, &Options{MaxPixels: 1199}, "40x30 pixels; at most 1199"},
	} {
		_, err := ReadGray(bytes.NewReader(c.file), c.opt)
		require.ErrorContains(t, err, c.want, c.name)
		require.True(t, strings.HasPrefix(err.Error(), "picture: "), err.Error())
	}
	_, err := ReadGray(bytes.NewReader(sound), &Options{MaxPixels: 1200})
	require.NoError(t, err)
	for n := range sound {
		_, err := ReadGray(bytes.NewReader(sound[:n]), nil)
		if n < len(sound)-12 { // what is missing is more than the closing chunk
			require.Error(t, err, n)
		}
	}
	_, err = OpenGray(filepath.Join(t.TempDir(), "none.png"), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadTruncatedJPEG(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, jpeg.Encode(&b, sketch.Plain(40, 30, 1), nil))
	for n := range b.Len() - 2 {
		_, err := ReadGray(bytes.NewReader(b.Bytes()[:n]), nil)
		require.Error(t, err, n)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(sketch.EncodePNG(f, sketch.Plain(5, 4, 1)))
	f.Add(sketch.EncodePNG(f, image.NewPaletted(image.Rect(0, 0, 3, 3), color.Palette{color.Black, color.White})))
	f.Add(sketch.WithEXIF(f, greyBlocks(16, 8, 30, 200), "jpeg", sketch.EXIF(binary.LittleEndian, 6)))
	f.Add(sketch.WithEXIF(f, greyBlocks(6, 3, 30, 200), "png", sketch.EXIF(binary.BigEndian, 8)))
	for _, name := range []string{"grey_progressive_restart", "colour_420", "colour_420_progressive"} {
		b, err := os.ReadFile(jpegFile(name))
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := ReadGray(bytes.NewReader(b), &Options{MaxPixels: 1 << 16})
		if err == nil && len(img.Pix) != img.Rect.Dx()*img.Rect.Dy() {
			t.Fatalf("%v has %d pixels", img.Rect, len(img.Pix))
		}
	})
}

// Every picture of two real collections is read, with the size in its list.
func TestOpenShared(t *testing.T) {
	for _, set := range []string{"covid-v7", "jsrt"} {
		dir := golden.Path(t, "data/lungs/"+set)
		f, err := os.Open(filepath.Join(dir, "manifest.csv"))
		require.NoError(t, err)
		rows, err := csv.NewReader(f).ReadAll()
		require.NoError(t, err)
		require.NoError(t, f.Close())
		for _, row := range rows[1:] {
			img, err := OpenGray(filepath.Join(dir, "images", row[0]), nil)
			require.NoError(t, err)
			require.Equal(t, row[2]+"x"+row[3], fmt.Sprintf("%dx%d", img.Rect.Dx(), img.Rect.Dy()), row[0])
			mask, err := OpenMask(filepath.Join(dir, "masks", row[1]), nil)
			require.NoError(t, err)
			require.Equal(t, img.Rect, mask.Rect, row[0])
			lungs := row[4]
			if set == "covid-v7" {
				lungs = row[6]
			}
			require.Equal(t, lungs, fmt.Sprint(bytes.Count(mask.Pix, []byte{255})), row[0])
		}
	}
}

func hash32(pix []uint8) string {
	h := sha256.Sum256(pix)
	return hex.EncodeToString(h[:16])
}
