package report

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hcunet/hcunet/metric"
)

func epoch(phase string, n int, loss, valid, dice float64, d time.Duration) metric.Epoch {
	return metric.Epoch{
		Phase: phase, Epoch: n, TrainLoss: loss, Rate: 1e-3 / float64(n+1), Speed: 12.5, Time: d,
		Values: metric.Values{{Name: metric.ValidLoss, Value: valid}, {Name: "dice", Value: dice}},
	}
}

var twoPhases = []metric.Epoch{
	epoch("frozen", 0, 0.693147, 0.5, 0.123456, 131*time.Second+900*time.Millisecond),
	epoch("frozen", 1, 0.25, math.NaN(), math.NaN(), 59*time.Second),
	epoch("full", 2, math.Inf(1), 1.0/3, 1, 3661*time.Second+1),
}

// The first header is the notebook's own, of fastai 1.
func TestWriteTable(t *testing.T) {
	var b bytes.Buffer
	more := epoch("full", 3, 0.5, 0.25, 0.75, time.Minute)
	more.Values = append(more.Values, metric.Value{Name: "hausdorff95", Value: 12.5})
	require.NoError(t, WriteTable(&b, append(slices.Clone(twoPhases), more)))
	assert.Equal(t, `frozen
epoch     train_loss  valid_loss  dice      time
0         0.693147    0.500000    0.123456  02:11
1         0.250000    -           -         00:59
full
epoch     train_loss  valid_loss  dice      time
2         +Inf        0.333333    1.000000  1:01:01
epoch     train_loss  valid_loss  dice      hausdorff95  time
3         0.500000    0.250000    0.750000  12.500000    01:00
`, b.String())
}

// With many classes, the printed table shows as many values as fit in 100 characters.
func TestWideTable(t *testing.T) {
	wide := epoch("", 0, 1, 1, 1, 3*time.Hour)
	for i := range 12 {
		wide.Values = append(wide.Values, metric.Value{Name: fmt.Sprintf("dice/class%02d", i), Value: 0.5})
	}
	var b bytes.Buffer
	require.NoError(t, WriteTable(&b, []metric.Epoch{wide}))
	assert.Equal(t, `epoch     train_loss  valid_loss  dice      dice/class00  dice/class01  dice/class02  time
0         1.000000    1.000000    1.000000  0.500000      0.500000      0.500000      3:00:00
`, b.String())
	require.Len(t, wide.Values, 14, "the epoch itself keeps all")
}

func sameEpochs(t *testing.T, want, got []metric.Epoch) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		// As text, for NaN is not equal to itself.
		require.Equal(t, fmt.Sprintf("%#v", want[i]), fmt.Sprintf("%#v", got[i]))
	}
}

func TestEpochsRoundTrip(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, WriteEpochs(&b, twoPhases))
	first, _, _ := strings.Cut(b.String(), "\n")
	assert.Equal(t, "phase,epoch,train_loss,valid_loss,dice,rate,images_per_second,seconds", first)
	got, err := ReadEpochs(&b)
	require.NoError(t, err)
	sameEpochs(t, twoPhases, got)

	b.Reset()
	require.NoError(t, WriteEpochs(&b, nil))
	got, err = ReadEpochs(&b)
	require.NoError(t, err)
	require.Empty(t, got)

	other := append(slices.Clone(twoPhases), metric.Epoch{Values: metric.Values{{Name: "iou"}}})
	require.ErrorContains(t, WriteEpochs(&b, other), "epoch 3 measured [iou], the first one [valid_loss dice]")
}

func TestReadEpochsRefuses(t *testing.T) {
	const head = "phase,epoch,train_loss,valid_loss,dice,rate,images_per_second,seconds\n"
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "the file is empty"},
		{"other header", "phase,epoch,loss,valid_loss,dice,rate,images_per_second,seconds\n", `column 3 of the header is "loss"`},
		{"short header", "phase,epoch,train_loss,rate\n", `of the header is`},
		{"no seconds", "phase,epoch,train_loss,valid_loss,dice,rate,images_per_second\n", `column 5 of the header is "dice"`},
		{"no number", head + "frozen,0,1,2,3,4,5,6\nfrozen,1,1,x,3,4,5,6\n", "line 3, valid_loss"},
		{"no time", head + "frozen,0,1,2,3,4,5,x\n", "line 2, seconds"},
		{"no epoch", head + "frozen,a,1,2,3,4,5,6\n", "line 2, epoch"},
		{"few fields", head + "frozen,0\n", "wrong number of fields"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ReadEpochs(strings.NewReader(c.text))
			require.ErrorContains(t, err, c.want)
		})
	}
}

// A run that is killed while it writes leaves a line cut anywhere: the lines
// before are read.
func TestEpochLines(t *testing.T) {
	var b bytes.Buffer
	var ends []int
	for _, e := range twoPhases {
		require.NoError(t, WriteEpochLine(&b, e))
		ends = append(ends, b.Len())
	}
	assert.Equal(t, `{"phase":"frozen","epoch":0,"train_loss":0.693147,"values":{"valid_loss":0.5,"dice":0.123456},"rate":0.001,"images_per_second":12.5,"seconds":131.9}`+"\n", b.String()[:ends[0]])
	for n := range b.Len() + 1 {
		got, err := ReadEpochLines(bytes.NewReader(b.Bytes()[:n]))
		require.NoError(t, err)
		whole := 0
		for _, end := range ends {
			if n >= end {
				whole++
			}
		}
		sameEpochs(t, twoPhases[:whole], got)
	}
	_, err := ReadEpochLines(strings.NewReader("{}\nnothing\n"))
	require.ErrorContains(t, err, "line 2")
	_, err = ReadEpochLines(strings.NewReader(strings.Repeat("a", maxLine+1) + "\n"))
	require.ErrorContains(t, err, "line 1 has more than 1048576 bytes")
}
