package doctor

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// On a machine where tests run nothing is wrong, and each part says something.
func TestExamine(t *testing.T) {
	var screen strings.Builder
	findings := Examine()
	well, err := Write(&screen, findings)
	require.NoError(t, err)
	t.Logf("\n%s", &screen)
	require.True(t, well)
	for _, f := range findings {
		require.NotEmpty(t, f.Is, f.Part)
		require.Equal(t, f.State == Good, f.Remedy == "", f.Part)
	}
	require.Contains(t, screen.String(), "right; a 3x3 convolution of 64 channels")
	require.Contains(t, mapped("libtorch_cpu."), "/libtorch_cpu.")
}

func TestWrite(t *testing.T) {
	var screen strings.Builder
	well, err := Write(&screen, []Finding{{Part: "a", Is: "fine"}, {"bc", Wrong, "broken", "mend it"}})
	require.NoError(t, err)
	require.False(t, well)
	require.Equal(t, "a   ok     fine\nbc  WRONG  broken\n           -> mend it\n", screen.String())
}

func TestQuota(t *testing.T) {
	require.Equal(t, 1.5, quota("150000 100000\n"))
	require.Zero(t, quota("max 100000\n"))
	require.Zero(t, quota(""))
	require.Zero(t, quota("1 0"))
}

func TestMeminfo(t *testing.T) {
	total, free := meminfo("MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    2097152 kB\n")
	require.Equal(t, 16.0, total)
	require.Equal(t, 2.0, free)
}
