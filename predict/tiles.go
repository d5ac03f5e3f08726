package predict

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/picture"
	"github.com/hcunet/hcunet/data/resize"
)

// Tiles predicts a film at its own resolution, in overlapping tiles of the network's
// size. Each tile is prepared like a film. Where tiles overlap, their probabilities are
// averaged with Gaussian weights, which are highest at the centre of a tile. Tiles are
// meant for films much larger than the network's size, and for networks that were trained
// on such tiles. A film with a side shorter than a tile is padded with black.
//
// The areas and sums in the rules of the operating point then count pixels of the film.
//
// Source: nnU-Net 2.5, nnunetv2/inference/sliding_window_prediction.py.
type Tiles struct {
	// Overlap is the smallest part of a tile's side that the next tile covers as well, up
	// to 0.9; 0 means 0.5, as in nnU-Net.
	Overlap float64
}

// maxTiled bounds the number of float64 values that the mean over tiles needs: outputs + 1
// for each pixel of the padded film. It makes 1 GiB.
const maxTiled = 1 << 27

func (t *Tiles) check() error {
	if !(t.Overlap >= 0 && t.Overlap <= 0.9) {
		return fmt.Errorf("predict: tiles with an overlap of %v; wanted 0 to 0.9", t.Overlap)
	}
	return nil
}

// step returns the largest distance from one tile to the next, as a part of a tile's side.
func (t *Tiles) step() float64 {
	if t.Overlap == 0 {
		return 0.5
	}
	return 1 - t.Overlap
}

// starts returns the positions at which tiles begin along a side, which must be at least
// as long as a tile. There are as few tiles as the step allows, at equal distances up to
// rounding; the last one ends where the side ends.
func starts(side, tile int, step float64) []int {
	n := int(math.Ceil(float64(side-tile)/(float64(tile)*step))) + 1
	at := make([]int, n)
	for i := 1; i < n; i++ {
		at[i] = int(math.RoundToEven(float64(side-tile) / float64(n-1) * float64(i)))
	}
	return at
}

// gaussian returns the weights of a tile's pixels along one side: 1 at the centre, with a
// standard deviation of an eighth of the side. The weight of a pixel is the product of
// the weights of its row and its column.
func gaussian(tile int) []float64 {
	sigma := float64(tile) / 8
	w := make([]float64, tile)
	for i := range w {
		d := float64(i-tile/2) / sigma
		w[i] = math.Exp(-d * d / 2)
	}
	return w
}

// whole predicts a film as one image.
func (w *work) whole(ctx context.Context, film *data.Film) ([]float32, resize.Geometry, error) {
	values, prepared, err := w.prepare(film)
	if err != nil {
		return nil, resize.Geometry{}, err
	}
	probs, err := w.compute(ctx, values)
	if err != nil {
		return nil, resize.Geometry{}, err
	}
	return probs[0], prepared.Geometry, nil
}

// tiles predicts a film in tiles, Options.Batch of them at a time.
func (w *work) tiles(ctx context.Context, film *data.Film) ([]float32, resize.Geometry, error) {
	m := film.Image
	g := resize.Geometry{FilmWidth: m.Width, FilmHeight: m.Height, Width: m.Width, Height: m.Height}
	outputs, tile := w.p.model.Task.Outputs(), w.p.model.Size()
	width, height := max(m.Width, tile), max(m.Height, tile) // with the padding
	if width > maxTiled/(outputs+1)/height {
		return nil, g, &FilmError{fmt.Errorf("predict: a film of %dx%d pixels with %d outputs is too large for tiles; wanted at most %d pixels", m.Width, m.Height, outputs, maxTiled/(outputs+1))}
	}
	left, top := (width-m.Width)/2, (height-m.Height)/2
	blend := newBlend(g, left, top, tile, outputs)
	step := w.p.opt.Tiles.step()
	var corners [][2]int
	for _, y := range starts(height, tile, step) {
		for _, x := range starts(width, tile, step) {
			corners = append(corners, [2]int{x, y})
		}
	}
	for some := range slices.Chunk(corners, w.p.opt.Batch) {
		w.expect(len(some))
		var images [][]float32
		for _, c := range some {
			values, _, err := w.prepare(&data.Film{Image: crop(m, c[0]-left, c[1]-top, tile)})
			if err != nil {
				return nil, g, err
			}
			images = append(images, values)
		}
		probs, err := w.compute(ctx, images...)
		if err != nil {
			return nil, g, err
		}
		for i, c := range some {
			blend.add(probs[i], c[0], c[1])
		}
	}
	return blend.mean(), g, nil
}

// crop returns the size x size pixels of m whose top left one is at column x and row y;
// pixels outside of m are black.
func crop(m *picture.Image, x, y, size int) *picture.Image {
	to := &picture.Image{Width: size, Height: size, Channels: m.Channels}
	if m.Pix16 != nil {
		to.Pix16 = make([]uint16, m.Channels*size*size)
		cut(to.Pix16, m.Pix16, m, x, y, size)
	} else {
		to.Pix8 = make([]uint8, m.Channels*size*size)
		cut(to.Pix8, m.Pix8, m, x, y, size)
	}
	return to
}

func cut[T uint8 | uint16](to, from []T, m *picture.Image, x, y, size int) {
	skip, end := max(-x, 0), min(size, m.Width-x)
	for c := range m.Channels {
		for row := max(-y, 0); row < size && y+row < m.Height; row++ {
			copy(to[(c*size+row)*size:][skip:end], from[(c*m.Height+y+row)*m.Width+x+skip:])
		}
	}
}

// A blend computes the weighted mean of the tiles of a film, in float64. Where all tiles
// have the same float32 probability, the mean is exactly that probability.
type blend struct {
	film      resize.Geometry
	left, top int // columns and rows of padding before the film
	tile      int // side of a tile in pixels
	outputs   int
	weights   []float64 // of the pixels along a tile's side
	sums      []float64 // (outputs, height, width)
	total     []float64 // (height, width)
}

func newBlend(film resize.Geometry, left, top, tile, outputs int) *blend {
	area := film.FilmWidth * film.FilmHeight
	return &blend{
		film: film, left: left, top: top, tile: tile, outputs: outputs, weights: gaussian(tile),
		sums: make([]float64, outputs*area), total: make([]float64, area),
	}
}

// add adds the probabilities of the tile whose top left pixel is at column x and row y of
// the padded film.
func (b *blend) add(prob []float32, x, y int) {
	x, y = x-b.left, y-b.top
	w, h := b.film.FilmWidth, b.film.FilmHeight
	for row := max(-y, 0); row < b.tile && y+row < h; row++ {
		for col := max(-x, 0); col < b.tile && x+col < w; col++ {
			weight := b.weights[row] * b.weights[col]
			at := (y+row)*w + x + col
			b.total[at] += weight
			for k := range b.outputs {
				b.sums[k*w*h+at] += weight * float64(prob[(k*b.tile+row)*b.tile+col])
			}
		}
	}
}

func (b *blend) mean() []float32 {
	prob := make([]float32, len(b.sums))
	for i, s := range b.sums {
		prob[i] = float32(s / b.total[i%len(b.total)])
	}
	return prob
}
