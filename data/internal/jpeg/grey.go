package jpeg

import "image/color"

// DecodeGrey decodes a DCT-coded image of 8 bits as grey, bit for bit as libjpeg does
// with grey output. A single component is returned unchanged; of YCbCr, the stored luma
// channel; of RGB, its luma by BT.601. The image has one component. Chroma is read and
// checked, but not transformed.
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

// dropChroma marks the components that DecodeGrey does not need. It is called
// at the first scan, when all markers that say which colours these are have
// been read.
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
// means YCbCr. Without one, an Adobe marker decides, and without that the ids
// of the components.
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
