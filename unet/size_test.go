package unet_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hcunet/hcunet/internal/golden"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/resnet"
	"github.com/hcunet/hcunet/unet"
	"github.com/stretchr/testify/require"
)

// smallNet returns a network on a ResNet-18 for images of one channel, without initial
// weights.
func smallNet(cfg unet.Config) *unet.Net {
	in := &nn.Init{Blank: true}
	return unet.New(in, resnet.New18(in, 1), 2, cfg)
}

// CheckSize accepts exactly the sizes for which the reference returns scores of the
// size of the image. A network without hypercolumns and last cross returns 34x34 scores
// for a 33x33 image in the reference; CheckSize refuses such images.
func TestCheckSizeAgainstReference(t *testing.T) {
	var facts struct {
		SizeTable map[string]map[string]string `json:"size_table"`
		Kernel    []int                        `json:"kernel_ok_square_upto160"`
		Plain     []int                        `json:"plain_ok_square_upto130"`
	}
	golden.JSON(t, "b1_forward/facts.json", &facts)
	nets := map[string]*unet.Net{
		"kernel":                      smallNet(unet.Config{}),
		"kernel_last_cross_false":     smallNet(unet.Config{NoLastCross: true}),
		"plain_unet":                  smallNet(unet.Config{NoHypercolumns: true}),
		"plain_unet_last_cross_false": smallNet(unet.Config{NoHypercolumns: true, NoLastCross: true}),
	}
	for size, results := range facts.SizeTable {
		var h, w int
		_, err := fmt.Sscanf(size, "%dx%d", &h, &w)
		require.NoError(t, err)
		for name, result := range results {
			err := nets[name].CheckSize(h, w)
			require.Equal(t, result == "ok "+size, err == nil, "%s of %s: %s, %v", name, size, result, err)
		}
	}
	for v := 1; v <= 160; v++ {
		require.Equal(t, slices.Contains(facts.Kernel, v), nets["kernel"].CheckSize(v, v) == nil, v)
		if v <= 130 {
			require.Equal(t, slices.Contains(facts.Plain, v), nets["plain_unet"].CheckSize(v, v) == nil, v)
		}
	}
}

func TestCheckSize(t *testing.T) {
	columns, plain := smallNet(unet.Config{}), smallNet(unet.Config{NoHypercolumns: true})
	for _, test := range []struct {
		net  *unet.Net
		h, w int
		says string // part of the error; "" if there is none
	}{
		{columns, 64, 96, ""},
		{columns, 250, 64, "pad them to 256x64"},
		{columns, 64, 250, "pad them to 64x256"},
		{columns, 0, 64, "pad them to 32x64"},
		{columns, -32, 64, "pad them to 32x64"},
		{plain, 2, 100, ""},
		{plain, 2, 75, "pad them to 2x76"},
		{plain, 0, 0, "pad them to 2x2"},
	} {
		err := test.net.CheckSize(test.h, test.w)
		if test.says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, test.says)
		}
	}
}

// For each size that CheckSize accepts, Forward returns scores of the image's size.
func TestSizes(t *testing.T) {
	for _, cfg := range []unet.Config{{}, {NoHypercolumns: true}, {NoLastCross: true}, {NoHypercolumns: true, NoLastCross: true}} {
		net := smallNet(cfg)
		for _, size := range [][2]int64{{32, 32}, {64, 32}, {32, 96}, {2, 2}, {34, 50}} {
			if net.CheckSize(int(size[0]), int(size[1])) != nil {
				continue
			}
			scoped(t, func() {
				x := nn.Zeros(nn.CPU, nn.Float, 1, 1, size[0], size[1])
				nn.NoGrad(func() {
					require.Equal(t, []int64{1, 2, size[0], size[1]}, nn.Shape(net.Forward(nn.Eval, x)))
				})
			})
		}
	}
	plain := smallNet(unet.Config{NoHypercolumns: true})
	err := nn.Try(func() {
		nn.Scope(func() {
			nn.NoGrad(func() { plain.Forward(nn.Eval, nn.Zeros(nn.CPU, nn.Float, 1, 1, 33, 33)) })
		})
	})
	require.EqualError(t, err, "unet: images are 33x33; height and width must be multiples of 2, resize or pad them to 34x34")
	for _, shape := range [][]int64{{1, 3, 32, 32}, {1, 32, 32}} {
		err := nn.Try(func() { nn.Scope(func() { plain.Forward(nn.Eval, nn.Zeros(nn.CPU, nn.Float, shape...)) }) })
		require.EqualError(t, err, fmt.Sprintf("unet: images of shape %v, wanted (N, 1, H, W)", shape))
	}
}
