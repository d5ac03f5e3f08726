package encoder_test

import (
	"fmt"
	"testing"

	"github.com/hcunet/hcunet/encoder"
	"github.com/hcunet/hcunet/nn"
	_ "github.com/hcunet/hcunet/resnet"
	"github.com/stretchr/testify/require"
)

// The properties of a kind match its encoder.
func TestKinds(t *testing.T) {
	require.Equal(t, []string{"resnet18", "resnet34"}, encoder.Names())
	for _, name := range encoder.Names() {
		kind, err := encoder.Find(name)
		require.NoError(t, err)
		e := kind.New(nn.NewInit(nn.CPU, 1), 2)
		require.Equal(t, name, e.Kind().Name)
		require.EqualValues(t, 2, e.InChannels())
		require.NoError(t, nn.Try(func() {
			nn.Scope(func() {
				const h, w = 64, 96
				maps := e.Features(nn.Eval, nn.Zeros(nn.CPU, nn.Float, 1, 2, h, w))
				require.Len(t, maps, len(kind.Widths))
				for i, m := range maps {
					s := kind.Strides[i]
					require.Equal(t, []int64{1, kind.Widths[i], h / s, w / s}, nn.Shape(m))
				}
			})
		}))
		met := map[int]bool{}
		last := 0
		for _, p := range nn.Parameters(e) {
			g := kind.Group(p.Name)
			require.GreaterOrEqual(t, g, last, "%s: groups follow one another", p.Name)
			last, met[g] = g, true
		}
		require.Len(t, met, kind.Groups)
		require.Equal(t, kind.Groups-1, last)
	}
}

func TestFindUnknown(t *testing.T) {
	_, err := encoder.Find("resnet35")
	require.EqualError(t, err, `encoder: "resnet35" is not known, wanted resnet18 or resnet34`)
	kind, err := encoder.Find("resnet18")
	require.NoError(t, err)
	require.PanicsWithError(t, `encoder: "resnet18" is registered already`, func() { encoder.Register(kind) })
	kind.Name, kind.Strides = "half", kind.Strides[1:]
	require.Panics(t, func() { encoder.Register(kind) })
	require.NotContains(t, encoder.Names(), "half")
}

func ExampleFind() {
	kind, err := encoder.Find("resnet34")
	if err != nil {
		panic(err)
	}
	fmt.Println(kind.Widths, kind.Strides)
	for _, w := range kind.Weights {
		fmt.Println(w.Name, w.SHA256(), w.Mean, w.Std)
	}
	// Output:
	// [64 64 128 256 512] [2 4 8 16 32]
	// resnet34-b627a593 b627a593 [0.485 0.456 0.406] [0.229 0.224 0.225]
	// resnet34-333f7ec4 333f7ec4 [0.485 0.456 0.406] [0.229 0.224 0.225]
}
