package hcunet_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	// go test compiles the native code before this test runs. Without the import go list
	// would compile it a second time, at the same time.
	_ "github.com/hcunet/hcunet/nn"
)

// The README's programs are formatted, and compile as they stand there.
func TestREADME(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	programs := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(text, -1)
	require.Len(t, programs, 2)
	for _, p := range programs {
		file := filepath.Join(t.TempDir(), "main.go")
		require.NoError(t, os.WriteFile(file, p[1], 0o644))
		unformatted, err := exec.Command("gofmt", "-l", file).Output()
		require.NoError(t, err)
		require.Empty(t, string(unformatted), "not gofmt'd:\n%s", p[1])
		out, err := exec.Command("go", "list", "-export", "-f", "{{.Export}}", file).CombinedOutput() // compiles, and does not link
		require.NoError(t, err, "%s", out)
		require.NotEmpty(t, strings.TrimSpace(string(out)))
	}
}
