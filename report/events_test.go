package report

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hcunet/hcunet/metric"
)

// An event is what the records below hold: field numbers and their contents.
type event map[protowire.Number][]byte

// records takes a file of events apart, checking lengths and checksums.
func records(t *testing.T, path string) []event {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var out []event
	for len(b) > 0 {
		n := binary.LittleEndian.Uint64(b)
		require.Equal(t, maskedCRC(b[:8]), binary.LittleEndian.Uint32(b[8:]))
		require.Equal(t, maskedCRC(b[12:12+n]), binary.LittleEndian.Uint32(b[12+n:]))
		out = append(out, fields(t, b[12:12+n]))
		b = b[16+n:]
	}
	return out
}

func fields(t *testing.T, b []byte) event {
	t.Helper()
	e := event{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		require.Positive(t, n)
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		require.Positive(t, size)
		content := b[n : n+size]
		if kind == protowire.BytesType {
			content, _ = protowire.ConsumeBytes(content)
		}
		e[number] = content
		b = b[n+size:]
	}
	return e
}

// The checksums are of RFC 3720, B.4: 32 zeros have 0x8a9136aa, 32 bytes of 0xff
// 0x62a8ab43; the mask is TensorFlow's: Python
//
//	((c >> 15) | (c << 17) & 0xffffffff) + 0xa282ead8 & 0xffffffff
func TestMaskedCRC(t *testing.T) {
	assert.Equal(t, uint32(0x0fd7fffa), maskedCRC(make([]byte, 32)))
	assert.Equal(t, uint32(0xf909b029), maskedCRC(bytes.Repeat([]byte{0xff}, 32)))
}

func TestEvents(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	now := func() time.Time { return time.Unix(1567339200, 250_000_000) }
	e, err := NewEvents(dir, &EventOptions{Now: now})
	require.NoError(t, err)
	require.NoError(t, e.Scalar("loss", 7, 0.5))
	require.NoError(t, e.Epoch("fold 0/", metric.Epoch{
		Epoch: 3, TrainLoss: 0.25, Rate: 0.001, Speed: math.NaN(), Values: metric.Values{{Name: "dice", Value: 0.75}, {Name: "iou", Value: math.NaN()}},
	}))
	picture := image.NewGray(image.Rect(0, 0, 3, 2))
	picture.Pix[4] = 200
	require.NoError(t, e.Image("batch", 1, picture))
	require.NoError(t, e.Close())
	again, err := NewEvents(dir, &EventOptions{Now: now, First: 1000})
	require.NoError(t, err)
	require.NoError(t, again.Close())

	got := records(t, filepath.Join(dir, "events.out.tfevents.1567339200.hcunet.000"))
	require.Len(t, got, 7)
	assert.Equal(t, "brain.Event:2", string(got[0][3]))
	assert.Equal(t, math.Float64bits(1567339200.25), binary.LittleEndian.Uint64(got[0][1]))
	assert.Equal(t, []byte{8, 1}, got[1][7], "SessionLog.START")
	for i, want := range []struct {
		tag   string
		step  byte
		value float32
	}{{"loss", 7, 0.5}, {"fold 0/train_loss", 3, 0.25}, {"fold 0/dice", 3, 0.75}, {"fold 0/rate", 3, 0.001}} {
		e := got[2+i]
		assert.Equal(t, []byte{want.step}, e[2])
		value := fields(t, fields(t, e[5])[1])
		assert.Equal(t, want.tag, string(value[1]))
		assert.Equal(t, want.value, math.Float32frombits(binary.LittleEndian.Uint32(value[2])))
	}
	value := fields(t, fields(t, got[6][5])[1])
	shown := fields(t, value[4])
	assert.Equal(t, []byte{2}, shown[1], "height")
	assert.Equal(t, []byte{3}, shown[2], "width")
	m, err := png.Decode(bytes.NewReader(shown[4]))
	require.NoError(t, err)
	assert.Equal(t, picture.Pix, m.(*image.Gray).Pix)

	second := records(t, filepath.Join(dir, "events.out.tfevents.1567339200.hcunet.001"))
	require.Len(t, second, 2)
	assert.Equal(t, protowire.AppendVarint(nil, 1000), second[1][2])

	// A broken disk is one error, and the same at the end.
	require.Error(t, e.Scalar("loss", 8, 0.5), "the file is closed")
	require.Error(t, e.Close())
	_, err = NewEvents(filepath.Join(dir, "events.out.tfevents.1567339200.hcunet.000"), nil)
	require.Error(t, err)
}
