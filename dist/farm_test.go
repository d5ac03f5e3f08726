package dist

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shell is a job that runs a line of shell with the place as $1.
func shell(name, line string) Job {
	return Job{Name: name, Argv: func(place string) []string { return []string{"sh", "-c", line, "sh", place} }}
}

func TestFarm(t *testing.T) {
	var out strings.Builder
	var jobs []Job
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		jobs = append(jobs, shell(name, "echo at $1"))
	}
	require.NoError(t, Farm(t.Context(), jobs, []string{"here", "there"}, &LaunchOptions{Stdout: &out}))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	slices.Sort(lines)
	require.Len(t, lines, len(jobs), "each job runs once")
	for i, l := range lines {
		require.Regexp(t, `^\[`+jobs[i].Name+`\] at (here|there)$`, l)
	}
}

// A job that fails ends the others, which hear of it, and no more are begun.
func TestFarmFails(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	jobs := []Job{
		shell("long", "trap 'echo >"+at("told")+"; exit 1' INT; echo >"+at("ready")+"; while :; do sleep 0.05; done"),
		shell("bad", "while [ ! -e "+at("ready")+" ]; do sleep 0.05; done; echo no memory >&2; exit 3"),
		shell("late", "echo >"+at("late")),
	}
	var errors strings.Builder
	err := Farm(t.Context(), jobs, []string{"here", "there"}, &LaunchOptions{Stderr: &errors})
	require.Regexp(t, `^dist: bad on (here|there) ended with exit status 3$`, err)
	require.Contains(t, errors.String(), "[bad] no memory\n")
	require.FileExists(t, at("told"))
	require.NoFileExists(t, at("late"))

	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, os.Remove(at("ready")))
	go func() {
		for {
			if _, err := os.Stat(at("ready")); err == nil {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	require.ErrorIs(t, Farm(ctx, jobs[:1], []string{"here"}, nil), context.Canceled)
	require.ErrorContains(t, Farm(t.Context(), jobs, nil, nil), "no place")
}
