package picture

import (
	"bytes"
	"encoding/binary"
	"image"
)

// Orientation returns the EXIF orientation, 1 to 8, of a PNG or JPEG file. It
// returns 1, "as stored", if there is none or it cannot be read: a picture with
// broken EXIF data is still usable.
//
// Source: CIPA DC-008 (Exif 2.32), 4.6.4 and 4.7.2; PNG third edition, 11.3.2.8.
func Orientation(file []byte) int {
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
		n := int(binary.BigEndian.Uint16(b[2:])) // includes its own two bytes
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

// Turn undoes an EXIF orientation: it returns a grey image or a mask as it should
// be displayed. Orientations 5 to 8 exchange width and height.
func Turn(img *image.Gray, orientation int) *image.Gray {
	return planes(img, 1).turned(orientation).Gray(false)
}

func (m *Image) turned(orientation int) *Image {
	w, h := m.Width, m.Height
	// from returns the stored position of the displayed pixel (x, y).
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
	case 6: // the stored top row is displayed on the right side
		from = func(x, y int) (int, int) { return y, h - 1 - x }
	case 7:
		from = func(x, y int) (int, int) { return w - 1 - y, h - 1 - x }
	case 8: // the stored top row is displayed on the left side
		from = func(x, y int) (int, int) { return w - 1 - y, x }
	default:
		return m
	}
	to := *m
	if orientation >= 5 {
		to.Width, to.Height = h, w
	}
	at := make([]int, 0, w*h)
	for y := range to.Height {
		for x := range to.Width {
			sx, sy := from(x, y)
			at = append(at, sy*w+sx)
		}
	}
	to.Pix8, to.Pix16 = moved(m.Pix8, at), moved(m.Pix16, at)
	return &to
}

// moved returns planes whose element i is element at[i] of the plane in pix.
func moved[T value](pix []T, at []int) []T {
	if pix == nil {
		return nil
	}
	to := make([]T, 0, len(pix))
	for plane := 0; plane < len(pix); plane += len(at) {
		for _, i := range at {
			to = append(to, pix[plane+i])
		}
	}
	return to
}
