package metric

import (
	"fmt"
	"math"
	"slices"
)

// A Spacing is the distance between the centres of neighbouring pixels, in
// millimetres. A zero component means 1: distances in pixels.
type Spacing struct{ X, Y float64 }

// Distances are the distances between the outlines of two masks, in the unit of
// the [Spacing]. Both are NaN if a mask is empty, because it has no outline.
type Distances struct {
	// Both summarize the distances from each pixel of either outline to the nearest
	// pixel of the other outline.
	Hausdorff95 float64 // 95th percentile
	Mean        float64 // average symmetric surface distance
}

// SurfaceDistances measures the distances between a class in a predicted mask and in
// a target. Both masks hold class indices in row-major order. An outline is the
// pixels of the class that have a neighbour above, below, left or right outside the
// class; the image's border counts as outside. It returns an error if the masks do
// not have that size, or the spacing is not between a nanometre and a kilometre.
//
// Source: MedPy 0.5.2, hd95 and assd with connectivity 1; where MedPy refuses an
// empty mask, the distances are NaN.
func SurfaceDistances(predicted, target []uint8, class uint8, width, height int, s Spacing) (Distances, error) {
	if width < 0 || height < 0 || len(predicted) != width*height || len(target) != width*height {
		return Distances{}, fmt.Errorf("metric: masks of %d and %d pixels, want %dx%d", len(predicted), len(target), width, height)
	}
	for _, v := range []*float64{&s.X, &s.Y} {
		if *v == 0 {
			*v = 1
		}
		if !(*v >= minSpacing && *v <= maxSpacing) {
			return Distances{}, fmt.Errorf("metric: pixel spacing %v, want millimetres from %g to %g", *v, minSpacing, maxSpacing)
		}
	}
	a, b := outline(predicted, class, width, height), outline(target, class, width, height)
	if len(a) == 0 || len(b) == 0 {
		return Distances{math.NaN(), math.NaN()}, nil
	}
	box := around(a, b)
	d := box.distances(nil, a, b, s)
	d = box.distances(d, b, a, s)
	return Distances{Hausdorff95: percentile(d, 0.95), Mean: mean(d)}, nil
}

const minSpacing, maxSpacing = 1e-6, 1e6

type point struct{ x, y int }

// outline returns the pixels of a class that have a neighbour outside it.
func outline(mask []uint8, class uint8, width, height int) (points []point) {
	for y := range height {
		for x := range width {
			i := y*width + x
			if mask[i] == class && (x == 0 || x == width-1 || y == 0 || y == height-1 ||
				mask[i-1] != class || mask[i+1] != class || mask[i-width] != class || mask[i+width] != class) {
				points = append(points, point{x, y})
			}
		}
	}
	return points
}

// box is a rectangle of an image; x1 and y1 lie outside it.
type box struct{ x0, y0, x1, y1 int }

func around(sets ...[]point) box {
	b := box{math.MaxInt, math.MaxInt, 0, 0}
	for _, points := range sets {
		for _, p := range points {
			b = box{min(b.x0, p.x), min(b.y0, p.y), max(b.x1, p.x+1), max(b.y1, p.y+1)}
		}
	}
	return b
}

// distances appends, for each point of from, the distance to the nearest point of
// to. All points lie in the box.
func (b box) distances(d []float64, from, to []point, s Spacing) []float64 {
	w, h := b.x1-b.x0, b.y1-b.y0
	set := make([]bool, w*h)
	for _, p := range to {
		set[(p.y-b.y0)*w+p.x-b.x0] = true
	}
	squared := distanceTransform(set, w, h, s)
	for _, p := range from {
		d = append(d, math.Sqrt(squared[(p.y-b.y0)*w+p.x-b.x0]))
	}
	return d
}

// distanceTransform returns the squared distance of each pixel to the nearest pixel
// of a set, which must not be empty. It takes time linear in the number of pixels:
// first it goes along the columns, then along the rows, where the squared distance
// is the lower envelope of one parabola per column.
//
// Source: P. F. Felzenszwalb and D. P. Huttenlocher, Distance Transforms of Sampled
// Functions (Cornell TR2004-1963), section 2.
func distanceTransform(set []bool, width, height int, s Spacing) []float64 {
	d := make([]float64, width*height)
	far := math.Inf(1)
	for x := range width {
		run := far // pixels since the last pixel of the set
		for y := range height {
			i := y*width + x
			if run++; set[i] {
				run = 0
			}
			d[i] = run
		}
		run = far
		for y := height - 1; y >= 0; y-- {
			i := y*width + x
			if run++; set[i] {
				run = 0
			}
			v := min(d[i], run) * s.Y
			d[i] = v * v
		}
	}
	row := make([]float64, width)
	parabolas := make([]int, width) // of the envelope, by the column of their lowest point
	begin := make([]float64, width) // first column where each is the lowest
	for y := range height {
		out := d[y*width : (y+1)*width]
		copy(row, out)
		k := -1
		for q, v := range row {
			if math.IsInf(v, 1) {
				continue // no pixel of the set in this column
			}
			from := math.Inf(-1)
			for k >= 0 {
				p := parabolas[k]
				// Where the parabolas of columns p and q meet.
				from = ((v-row[p])/(s.X*s.X) + float64(q*q-p*p)) / (2 * float64(q-p))
				if from > begin[k] {
					break
				}
				k--
				from = math.Inf(-1)
			}
			k++
			parabolas[k], begin[k] = q, from
		}
		last := k
		k = 0
		for x := range out {
			for k < last && begin[k+1] < float64(x) {
				k++
			}
			dx := float64(x-parabolas[k]) * s.X
			out[x] = dx*dx + row[parabolas[k]]
		}
	}
	return d
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// percentile returns the value below which that share of v lies, interpolated
// linearly between neighbours as numpy.percentile does by default.
func percentile(v []float64, share float64) float64 {
	v = slices.Sorted(slices.Values(v))
	at := share * float64(len(v)-1)
	low := int(at)
	high := min(low+1, len(v)-1)
	return v[low] + (v[high]-v[low])*(at-float64(low))
}
