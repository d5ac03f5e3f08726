package ensemble_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/data/maskcsv"
	"github.com/hcunet/hcunet/ensemble"
	"github.com/hcunet/hcunet/predict"
	"github.com/hcunet/hcunet/predict/libtorch"
	"github.com/hcunet/hcunet/rle"
	"github.com/stretchr/testify/require"
)

// The model of a run predicts the test films from their files and gets exactly the results
// of the run. Its description is that of the run.
func TestArtifact(t *testing.T) {
	films := blobs(t, 12, 2)
	p := data.DefaultPreparation()
	p.Size, p.CLAHE = side, false
	require.NoError(t, data.WriteStatistics(filepath.Join(films, data.StatisticsFile), data.Statistics{
		Mean: data.Values{0.35}, Std: data.Values{0.12}, Films: 12, Size: side, Made: "for a test", Preparation: &p,
	}))
	c := small(ensemble.Default, films)
	c.Phases = ensemble.NotebookPhases(6, 6, 1e-2, false)
	c.Inference.FilmSize = side
	out := filepath.Join(t.TempDir(), "run")
	result := run(t, c, ensemble.Options{Out: out, Fold: -1})

	model, err := predict.Open(filepath.Join(out, "model.safetensors"), libtorch.Backend{}, nil)
	require.NoError(t, err)
	defer model.Close()
	submission, err := maskcsv.Open(filepath.Join(out, "submission.csv"), nil)
	require.NoError(t, err)
	bytes, err := os.ReadFile(filepath.Join(out, "preds_test.npy"))
	require.NoError(t, err)
	bytes = bytes[len(bytes)-2*side*side:]
	for i, id := range submission.IDs {
		r, err := model.File(t.Context(), filepath.Join(films, "test", id+".png"))
		require.NoError(t, err)
		mask, err := submission.Mask(id, side, side)
		require.NoError(t, err)
		require.Equal(t, rle.Encode(mask, nil), rle.Encode(r.Mask(), nil))
		require.True(t, r.Positive)
		for j, v := range r.Prob[side*side:] {
			require.Equal(t, bytes[i*side*side+j], uint8(v*255))
		}
	}

	m := model.Model()
	require.Equal(t, 2, m.Folds)
	require.Equal(t, p, m.Preparation)
	require.Equal(t, result.Classes[0].Rule, m.Point.Rules[0])
	require.Equal(t, result.Classes[0].OutOfFold.Dice, m.Scores[0].Dice)
	require.Equal(t, 12, m.Training.Images)
	require.Equal(t, []int{12}, m.Training.Positives)
	require.False(t, m.Training.Phantoms)
}
