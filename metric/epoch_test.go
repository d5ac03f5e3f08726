package metric

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEpochJSON(t *testing.T) {
	e := Epoch{
		Phase: "full", Epoch: 11, TrainLoss: 0.30000000000000004, // needs all 17 digits
		Values: Values{{"valid_loss", 0.25}, {"dice/left \"lung\"", 1}, {"case_specificity", math.NaN()}, {"a", math.Inf(1)}, {"b", math.Inf(-1)}},
		Rate:   1e-3, Speed: 12.5, Time: 83*time.Second + 7,
	}
	b, err := json.Marshal(e)
	require.NoError(t, err)
	assert.Equal(t, `{"phase":"full","epoch":11,"train_loss":0.30000000000000004,`+
		`"values":{"valid_loss":0.25,"dice/left \"lung\"":1,"case_specificity":null,"a":"+Inf","b":"-Inf"},`+
		`"rate":0.001,"images_per_second":12.5,"seconds":83.000000007}`, string(b))

	var back Epoch
	require.NoError(t, json.Unmarshal(b, &back))
	assert.True(t, math.IsNaN(back.Value("case_specificity")))
	back.Values[2].Value, e.Values[2].Value = 0, 0 // NaN is not equal to itself
	assert.Equal(t, e, back)
	assert.Equal(t, 0.25, back.Value(ValidLoss))
	assert.True(t, math.IsNaN(back.Value("no such")))

	e = Epoch{TrainLoss: math.NaN()}
	b, err = json.Marshal(e)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &back))
	assert.True(t, math.IsNaN(back.TrainLoss))
	assert.Empty(t, back.Values)
}

func TestEpochJSONErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{"values":[1]}`:           "wanted an object",
		`{"values":{"dice":"hi"}}`: `value "dice"`,
		`{"epoch":"x"}`:            "epoch",
		`{"values":{"dice":1}`:     "unexpected end",
	} {
		var e Epoch
		assert.ErrorContains(t, json.Unmarshal([]byte(text), &e), want, text)
	}
}
