package augment_test

import (
	"encoding/json"
	"testing"

	"github.com/hcunet/hcunet/augment"
	"github.com/stretchr/testify/require"
)

// A configuration that is written to JSON and read back is equal; an unknown padding
// is an error.
func TestConfigJSON(t *testing.T) {
	c := augment.Config{PFlip: 0.25, PAffine: 1, PLighting: 0.5, MaxWarp: 0.1, MaxRotate: 3, MaxZoom: 1.2, MaxBrightness: 0.3, MaxContrast: 0.4, CenterCrop: true, Padding: augment.Border}
	b, err := json.Marshal(c)
	require.NoError(t, err)
	require.Contains(t, string(b), `"padding":"border"`)
	var back augment.Config
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, c, back)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"padding": "mirror"}`), &back), `padding "mirror"; wanted reflection, border or zeros`)
	_, err = json.Marshal(augment.Config{Padding: 9})
	require.ErrorContains(t, err, "padding 9; wanted reflection, border or zeros")
	require.Equal(t, "augment: padding(9)", augment.Padding(9).String())
}
