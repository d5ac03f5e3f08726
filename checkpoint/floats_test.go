package checkpoint

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The bits are those of Python, with torch 1.13.1:
//
//	torch.tensor([...], dtype=torch.float64).to(dtype).view(torch.int16)
func TestAsRounds(t *testing.T) {
	for _, c := range []struct {
		x          float64
		half, bf16 uint16
	}{
		{0, 0, 0},
		{math.Copysign(0, -1), 0x8000, 0x8000},
		{1, 0x3c00, 0x3f80},
		{-2, 0xc000, 0xc000},
		{1 + 0x1p-11, 0x3c00, 0x3f80},           // a tie, to the even one below
		{1 + 0x3p-11, 0x3c02, 0x3f80},           // a tie, to the even one above
		{1 + 0x1p-8, 0x3c04, 0x3f80},            // a tie of bfloat16
		{1 + 0x3p-8, 0x3c0c, 0x3f82},            //
		{0.1, 0x2e66, 0x3dcd},                   //
		{65504, 0x7bff, 0x4780},                 // the largest half
		{65519, 0x7bff, 0x4780},                 // rounds down to it
		{65520, 0x7c00, 0x4780},                 // rounds to infinity
		{0x1p-24, 0x0001, 0x3380},               // the smallest half
		{0x1p-25, 0x0000, 0x3300},               // a tie with zero
		{0x1.8p-25, 0x0001, 0x3340},             //
		{0x1.ffcp-15, 0x0400, 0x3880},           // rounds up to the first normal half
		{0x1p-133, 0, 0x0001},                   // the smallest bfloat16
		{3.3895313892515355e38, 0x7c00, 0x7f7f}, // the largest bfloat16
		{-3.4e38, 0xfc00, 0xff80},               //
		{inf, 0x7c00, 0x7f80},
	} {
		assert.Equal(t, c.half, round16(c.x, 10, 15), "half of %g: %04x", c.x, round16(c.x, 10, 15))
		assert.Equal(t, c.bf16, round16(c.x, 7, 127), "bfloat16 of %g: %04x", c.x, round16(c.x, 7, 127))
	}
	x, err := Tensor{Name: "w", DType: F64, Shape: []int{1}, Data: []byte{0, 0, 0, 0, 0, 0, 0xf8, 0x7f}}.As(F16)
	require.NoError(t, err)
	v, err := x.Float64s()
	require.NoError(t, err)
	require.True(t, math.IsNaN(v[0]))
}

// Every 16-bit value survives the way through float32 and back, and a value
// between two goes to the nearer.
func TestAsIsTheInverse(t *testing.T) {
	for d, infinity := range map[DType]uint16{F16: 0x7c00, BF16: 0x7f80} {
		data := make([]byte, 0, 2<<16)
		for h := range 1 << 16 {
			if uint16(h)&0x7fff > infinity {
				h = 0 // of a NaN the payload is not kept
			}
			data = append(data, byte(h), byte(h>>8))
		}
		x := Tensor{Name: "every", DType: d, Shape: []int{1 << 16}, Data: data}
		wide, err := x.As(F32)
		require.NoError(t, err)
		back, err := wide.As(d)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, back.Data), d)
		same, err := x.As(d)
		require.NoError(t, err)
		require.Equal(t, d, same.DType)
		require.Same(t, &data[0], &same.Data[0], "no copy is made")

		v, err := x.Float64s()
		require.NoError(t, err)
		random := rand.New(rand.NewPCG(1, 2))
		for range 10000 {
			h := random.IntN(int(infinity) - 1)
			low, high := v[h], v[h+1]
			at := low + (high-low)*random.Float64()
			nearest := low
			if high-at < at-low {
				nearest = high
			}
			y, err := Tensor{Name: "x", DType: F64, Shape: []int{1}, Data: []byte(le64(int64(math.Float64bits(at))))}.As(d)
			require.NoError(t, err)
			got, err := y.Float64s()
			require.NoError(t, err)
			require.Equal(t, nearest, got[0], "%s of %g, between %g and %g", d, at, low, high)
		}
	}
}

func TestAsRefuses(t *testing.T) {
	w := FromFloat32("w", []float32{1}, 1)
	for _, d := range []DType{I64, C64, F8E4M3, "F7"} {
		_, err := w.As(d)
		require.ErrorContains(t, err, `"w" cannot become `+string(d))
	}
	_, err := Tensor{Name: "c", DType: C64, Shape: []int{1}, Data: make([]byte, 8)}.As(F32)
	require.ErrorContains(t, err, `"c" is C64`)
	_, err = Tensor{Name: "s", DType: F32, Shape: []int{2}, Data: make([]byte, 4)}.As(F16)
	require.ErrorContains(t, err, `"s"`)
}
