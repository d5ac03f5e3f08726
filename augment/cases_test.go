package augment

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/internal/golden"
)

var casesFile = flag.String("cases", "testdata/cases.json", "draws by fastai, made by testdata/cases.py")

// picture and blobs repeat the formulas of testdata/cases.py.
func picture(h, w int) []float32 {
	pix := make([]float32, h*w)
	for i := range pix {
		x, y := i%w, i/w
		pix[i] = float32((x*x*3+y*y*5+x*y*7+x*11)/4%256) / 255
	}
	return pix
}

func blobs(h, w int) []bool {
	pix := make([]bool, h*w)
	for i := range pix {
		x, y := i%w, i/w
		pix[i] = (2*x-w)*(2*x-w)+(3*y-h)*(3*y-h) < h*w || (x*5+y*3)%11 < 3
	}
	return pix
}

// What fastai's own random draws make of a picture and a mask, at several sizes.
//
// Pictures: a coordinate of fastai's float32 is off by a few 2^-24 of the image's
// width, and neighbouring pixels differ by up to the whole range. Masks: a pixel
// may differ where the coordinate lies as near to the middle of two pixels.
func TestFastaiDraws(t *testing.T) {
	raw, err := os.ReadFile(*casesFile)
	require.NoError(t, err)
	var file struct {
		Cases []struct {
			H, W, Size int
			Params     Params
			Image      []float32
			Mask       string
		}
	}
	require.NoError(t, json.Unmarshal(raw, &file))
	require.NotEmpty(t, file.Cases)
	worst, sampled, ties, pixels := 0.0, 0, 0, 0
	for i, c := range file.Cases {
		name := fmt.Sprintf("draw %d, %dx%d to %d, %+v", i, c.H, c.W, c.Size, c.Params)
		plan, err := c.Params.Plan(c.H, c.W, c.Size)
		require.NoError(t, err)
		if plan.Resample {
			sampled++
		}
		wide := float64(max(c.H, c.W))
		e := golden.Close(t, name, plan.Image(nil, picture(c.H, c.W)), c.Image, 1e-6+wide*8/(1<<24))
		worst = max(worst, e/wide*(1<<24))
		mask := Mask(&plan, nil, blobs(c.H, c.W))
		require.Len(t, mask, len(c.Mask), name)
		wrong := 0
		for i, v := range mask {
			pixels++
			if v == (c.Mask[i] == '#') {
				continue
			}
			if halfway(&plan, i) {
				ties++
			} else {
				wrong++
			}
		}
		assert.Zero(t, wrong, "mask pixels of %s", name)
	}
	assert.Greater(t, sampled, len(file.Cases)/2)
	assert.Less(t, sampled, len(file.Cases))
	t.Logf("%d draws, %d sampled: worst error %.2g of 2^-24 times the width; %d of %d mask pixels at ties", len(file.Cases), sampled, worst, ties, pixels)
}
