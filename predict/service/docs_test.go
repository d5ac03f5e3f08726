package service

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The code in docs/service.md is part of the example, which is run as a test.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/service.md")
	require.NoError(t, err)
	example, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(page, -1)
	require.Len(t, blocks, 1)
	bare := regexp.MustCompile(`(?m)^\t+`)
	require.Contains(t, bare.ReplaceAllString(string(example), ""), strings.TrimSpace(bare.ReplaceAllString(string(blocks[0][1]), "")))
}
