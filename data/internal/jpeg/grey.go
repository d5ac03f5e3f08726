package jpeg

import "image/color"

// DecodeGrey decodes a DCT-coded image of 8 bits as grey, bit for bit as libjpeg
// does when it is asked for grey: one component comes as it is, of YCbCr the luma
// channel as it is stored, and of RGB the luma
// that BT.601 gives it. The image returned has one component. Chroma is read and checked, but not transformed.
//
// Other precisions and processes give an UnsupportedError, otherwise errors are
// those of Decode.
func DecodeGrey(src []byte, lim Limits) (*Image, error) {
	d := &decoder{lim: lim, grey: true}
	img, err := d.image(src)
	if err != nil || img.Components == 1 {
		return img, err
	}
	grey := make([]uint8, img.Width*img.Height)
	for i := range grey {
		p := img.Pix8[3*i : 3*i+3 : 3*i+3]
		grey[i], _, _ = color.RGBToYCbCr(p[0], p[1], p[2]) // libjpeg's luma, to the bit
	}
	img.Components, img.Pix8 = 1, grey
	return img, nil
}

// dropChroma marks the components that DecodeGrey has no use for. It is called
// at the first scan, when every marker has been seen that tells the colours.
func (d *decoder) dropChroma() {
	if d.rgb() {
		return
	}
	d.img.Components = 1
	for i := range d.comps[1:] {
		d.comps[1+i].unused = true
	}
}

// rgb reports whether three components are red, green and blue. A JFIF marker
// says YCbCr and is believed first, then what an Adobe marker says, then the
// names of the components.
//
// Source: default_decompress_parms of libjpeg.
func (d *decoder) rgb() bool {
	switch {
	case len(d.comps) != 3 || d.jfif:
		return false
	case d.transform >= 0:
		return d.transform == 0
	}
	return d.comps[0].id == 'R' && d.comps[1].id == 'G' && d.comps[2].id == 'B'
}
