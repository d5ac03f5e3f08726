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
	require.EqualError(t, Unmarshal("x", []byte(`{} {}`), &v), "x: there is more text after the JSON value")
	require.ErrorContains(t, Unmarshal("x", []byte(`{"a": "1"}`), &v), "x: json: cannot unmarshal string")
}
