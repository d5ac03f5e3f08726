package passive

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// As a program of its own the test's binary says which policy it has, and its
// arguments.
func TestMain(m *testing.M) {
	if os.Getenv("PASSIVE_TEST") == "" {
		os.Exit(m.Run())
	}
	Restart()
	fmt.Println(os.Getenv(policy), os.Getenv(timeout), os.Args[1:], os.Getpid())
}

func TestRestart(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be replaced there")
	}
	rest := slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, policy+"=") || strings.HasPrefix(s, timeout+"=")
	})
	for said, want := range map[string]string{"": "passive 4", timeout + "=20": "passive 20", policy + "=active": "active "} {
		cmd := exec.Command(os.Args[0], "-a", "b c")
		cmd.Env = append(slices.Clone(rest), "PASSIVE_TEST=1")
		if said != "" {
			cmd.Env = append(cmd.Env, said)
		}
		out, err := cmd.Output()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%s [-a b c] %d\n", want, cmd.Process.Pid), string(out))
	}
}
