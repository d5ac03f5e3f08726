package strict

import (
	"testing"

	"github.com/stretchr/testify/require"
)

type inner struct {
	B float64 `json:"b"`
}

type outer struct {
	A int `json:"a,omitempty"`
	inner
	Skipped int `json:"-"`
}

func TestUnmarshal(t *testing.T) {
	v := outer{A: 1, inner: inner{B: 2}}
	require.NoError(t, Unmarshal("x", []byte(`{"b": 0}`), &v))
	require.Equal(t, outer{A: 1}, v, "what is missing stays, zero is a value")
	require.EqualError(t, Unmarshal("x: y", []byte(`{"c": 0}`), &v), `x: y: unknown field "c", wanted a, b`)
	require.EqualError(t, Unmarshal("x", []byte(`{} {}`), &v), "x: something follows the JSON value")
	require.ErrorContains(t, Unmarshal("x", []byte(`{"a": "1"}`), &v), "x: json: cannot unmarshal string")
}

func TestWord(t *testing.T) {
	words := []string{"red", "green"}
	i, err := Word("color", []byte("green"), words)
	require.NoError(t, err)
	require.Equal(t, 1, i)
	_, err = Word("color", []byte("Red"), words)
	require.EqualError(t, err, `color "Red", wanted red or green`)
	b, err := Text("color", 1, words)
	require.NoError(t, err)
	require.Equal(t, "green", string(b))
	_, err = Text("color", 2, words)
	require.EqualError(t, err, "color 2, wanted 0 to 1")
}
