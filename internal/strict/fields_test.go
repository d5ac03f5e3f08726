package strict

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecode(t *testing.T) {
	type leaf struct {
		Clip float64 `json:"clip"`
		Beta *leaf   `json:"beta"`
	}
	type tree struct {
		inner
		Training leaf   `json:"training"`
		Phases   []leaf `json:"phases"`
	}
	v := tree{Training: leaf{Clip: 3}}
	require.NoError(t, Decode("x", []byte(`{"b": 1, "phases": [{"clip": 2}], "training": {"beta": {"clip": 5}}}`), &v))
	require.Equal(t, tree{inner{1}, leaf{3, &leaf{Clip: 5}}, []leaf{{Clip: 2}}}, v)
	for text, want := range map[string]string{
		`{"training": {"clpi": 1}}`:           `x: unknown field "training.clpi"; did you mean "clip"?`,
		`{"training": {"beta": {"Clip": 1}}}`: `x: unknown field "training.beta.Clip"; did you mean "clip"?`,
		`{"phases": [{}, {"epochs": 1}]}`:     `x: unknown field "phases[1].epochs"; wanted clip, beta`,
		`{"trainings": 1, "clpi": 2}`:         `x: unknown field "trainings"; did you mean "training"?`,
		`{"training": }`:                      "x: invalid character",
		`{"training": 5}`:                     "x: json: cannot unmarshal number",
		`[]`:                                  "x: json: cannot unmarshal array",
	} {
		require.ErrorContains(t, Decode("x", []byte(text), &v), want)
	}
}

func TestDistance(t *testing.T) {
	// D. Jurafsky, J. H. Martin, Speech and Language Processing, figure 2.17 with
	// substitutions that cost 1: five.
	require.Equal(t, 5, distance("intention", "execution"))
	require.Equal(t, 3, distance("", "abc"))
	require.Equal(t, 3, distance("abc", ""))
	require.Equal(t, 1, distance("clip", "clp"))
}
