package ensemble

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/resize"
	"github.com/hcunet/hcunet/metric"
	"github.com/hcunet/hcunet/predict"
	"github.com/stretchr/testify/require"
)

// BenchmarkSubmission measures the time from the probabilities of 3,205 films to
// submission.csv. The second stage of the challenge has as many films; there about one in
// five has a mask, here each one.
func BenchmarkSubmission(b *testing.B) {
	const films, size = 3205, 256
	m := &predict.Model{Task: data.Binary("pneumothorax")}
	m.Point.Rules = []metric.Rule{{Top: 0.6, MinArea: 200, Bottom: 0.3}}
	maps := make([][]float32, 50)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range maps {
		maps[i] = blob(r, size)
	}
	g := resize.Geometry{FilmWidth: 1024, FilmHeight: 1024, Width: size, Height: size}
	for name, notebookRuns := range map[string]bool{"exact": false, "notebook": true} {
		b.Run(name, func(b *testing.B) {
			out := &folder{dir: b.TempDir()}
			b.ReportAllocs()
			for b.Loop() {
				s := newSubmission(m, notebookRuns)
				for i := range films {
					require.NoError(b, s.add(fmt.Sprintf("film%d", i), maps[i%len(maps)], g))
				}
				require.NoError(b, s.save(out))
				require.Equal(b, films, s.masks[0])
			}
			st, err := os.Stat(out.path("submission.csv"))
			require.NoError(b, err)
			b.ReportMetric(float64(st.Size())/films, "csv-B/film")
		})
	}
}

// blob returns the probabilities of both classes. Pneumothorax is a spot with a rough edge.
func blob(r *rand.Rand, size int) []float32 {
	prob := make([]float32, 2*size*size)
	cx, cy := 60+r.Float64()*130, 60+r.Float64()*130
	w, h := 15+r.Float64()*35, 20+r.Float64()*50
	for i := range size * size {
		x, y := (float64(i%size)-cx)/w, (float64(i/size)-cy)/h
		p := float32(math.Exp(-x*x-y*y) * (0.8 + 0.2*r.Float64()))
		prob[i], prob[size*size+i] = 1-p, p
	}
	return prob
}
