package data

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
)

const pngHeader = "\x89PNG\r\n\x1a\n"

// greyOf returns a colour's luma without its transparency.
func greyOf(c color.Color) uint8 {
	n := color.NRGBAModel.Convert(c).(color.NRGBA)
	return luma(n.R, n.G, n.B)
}

// orientation returns the EXIF orientation, 1 to 8, of a PNG or JPEG file; 1,
// "as stored", where there is none or it cannot be read: a picture is not lost
// for its camera's notes.
//
// Source: CIPA DC-008 (Exif 2.32), 4.6.4 and 4.7.2; PNG third edition, 11.3.2.8.
func orientation(file []byte) int {
	if bytes.HasPrefix(file, []byte(pngHeader)) {
		for b := file[8:]; len(b) >= 12; {
			n := int64(binary.BigEndian.Uint32(b))
			if n > int64(len(b))-12 {
				break
			}
			switch string(b[4:8]) {
			case "eXIf":
				return tiffOrientation(b[8 : 8+n])
			case "IEND":
				return 1
			}
			b = b[12+n:]
		}
		return 1
	}
	const app1, startOfScan = 0xe1, 0xda
	for b := file[2:]; len(b) >= 4 && b[0] == 0xff; {
		if b[1] == 0xff { // fill byte
			b = b[1:]
			continue
		}
		n := int(binary.BigEndian.Uint16(b[2:])) // counts itself
		if b[1] == startOfScan || n < 2 || n > len(b)-2 {
			break
		}
		if rest, ok := bytes.CutPrefix(b[4:2+n], []byte("Exif\x00\x00")); ok && b[1] == app1 {
			return tiffOrientation(rest)
		}
		b = b[2+n:]
	}
	return 1
}

// tiffOrientation reads tag 0x0112 of the first directory of a TIFF block.
func tiffOrientation(b []byte) int {
	if len(b) < 8 {
		return 1
	}
	var order binary.ByteOrder
	switch string(b[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 1
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return 1
	}
	const orientationTag, short, entrySize = 0x0112, 3, 12
	entries := int(order.Uint16(b[at:]))
	for e := b[at+2:]; entries > 0 && len(e) >= entrySize; entries-- {
		if order.Uint16(e) == orientationTag && order.Uint16(e[2:]) == short {
			if v := int(order.Uint16(e[8:])); 1 <= v && v <= 8 {
				return v
			}
			return 1
		}
		e = e[entrySize:]
	}
	return 1
}

// orient undoes an EXIF orientation: it returns the picture as it is to be seen.
// Orientations 5 to 8 exchange width and height.
func orient(img *image.Gray, orientation int) *image.Gray {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	// from gives the stored place of the seen pixel (x, y).
	var from func(x, y int) (int, int)
	switch orientation {
	case 2:
		from = func(x, y int) (int, int) { return w - 1 - x, y }
	case 3:
		from = func(x, y int) (int, int) { return w - 1 - x, h - 1 - y }
	case 4:
		from = func(x, y int) (int, int) { return x, h - 1 - y }
	case 5:
		from = func(x, y int) (int, int) { return y, x }
	case 6: // the stored top row is the seen right side
		from = func(x, y int) (int, int) { return y, h - 1 - x }
	case 7:
		from = func(x, y int) (int, int) { return w - 1 - y, h - 1 - x }
	case 8: // the stored top row is the seen left side
		from = func(x, y int) (int, int) { return w - 1 - y, x }
	default:
		return img
	}
	dw, dh := w, h
	if orientation >= 5 {
		dw, dh = h, w
	}
	dst := image.NewGray(image.Rect(0, 0, dw, dh))
	for y := range dh {
		for x := range dw {
			sx, sy := from(x, y)
			dst.Pix[y*dw+x] = img.Pix[sy*img.Stride+sx]
		}
	}
	return dst
}
