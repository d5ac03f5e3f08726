package jpeg

func (d *decoder) progressive(sc *scan) error { return UnsupportedError("progressive") }
func (d *decoder) reconstruct()               {}
