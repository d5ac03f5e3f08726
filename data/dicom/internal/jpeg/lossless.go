package jpeg

func (d *decoder) lossless(sc *scan, at int) error { return UnsupportedError("lossless") }
