package clahe

import "image"

// mapTiles computes the mapping from grey value to level of every tile.
func (e *Equalizer) mapTiles(img *image.Gray, bins int) {
	if cap(e.maps) < e.nr*e.nc {
		e.maps = make([][grey]float64, e.nr*e.nc)
	}
	e.maps = e.maps[:e.nr*e.nc]
	if cap(e.hist) < bins {
		e.hist = make([]int, bins)
	}
	hist := e.hist[:bins]

	area := e.kr * e.kc
	share := e.opt.ClipLimit
	if share == 0 {
		share = 0.01 // scikit-image's default
	}
	limit := max(int(share*float64(area)), 1)
	scale := float64(top) / float64(area)

	for t := range e.maps {
		var count [grey]int
		e.count(&count, img, t/e.nc*e.kr, t%e.nc*e.kc)
		clear(hist)
		for v, n := range count {
			hist[e.bin[v]] += n
		}
		clip(hist, limit)
		total := 0
		for b, n := range hist {
			total += n
			hist[b] = int(min(float64(total)*scale, top))
		}
		for v, b := range e.bin {
			e.maps[t][v] = float64(hist[b])
		}
	}
}

// count counts the grey values of the tile whose first pixel is at row y,
// column x of the image. Outside the image the tile shows the reflection of the
// image.
func (e *Equalizer) count(count *[grey]int, img *image.Gray, y, x int) {
	inside := max(min(e.kc, e.cols-x), 0)
	for _, r := range e.rowAt[y : y+e.kr] {
		line := img.Pix[r*img.Stride:][:e.cols]
		for _, v := range line[x : x+inside] {
			count[v]++
		}
		for _, c := range e.colAt[x+inside : x+e.kc] {
			count[line[c]]++
		}
	}
}

// clip cuts the bins off at limit and distributes the excess: first in equal
// parts, where a bin that comes closer to the limit than one part is filled up
// to the limit; then one by one to bins spread evenly over the histogram.
func clip(hist []int, limit int) {
	excess := 0
	for b, n := range hist {
		if n > limit {
			excess += n - limit
			hist[b] = limit
		}
	}
	part := excess / len(hist)
	full := 0 // bins at the limit
	for b, n := range hist {
		grown := n
		if grown < limit-part {
			grown += part
		}
		if grown >= limit-part { // not "else": scikit-image compares the grown bin again
			grown = limit
			full++
		}
		excess -= grown - n
		hist[b] = grown
	}
	for excess > 0 && full < len(hist) {
		for first := 0; first < len(hist) && excess > 0; first++ {
			step := max((len(hist)-full)/excess, 1)
			for b := first; b < len(hist); b += step {
				if hist[b] < limit {
					hist[b]++
					excess--
					if hist[b] == limit {
						full++
					}
				}
			}
		}
	}
}
