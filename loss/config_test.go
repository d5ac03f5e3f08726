package loss_test

import (
	"encoding/json"
	"testing"

	"github.com/hcunet/hcunet/data"
	"github.com/hcunet/hcunet/loss"
	"github.com/stretchr/testify/require"
)

func TestConfigRoundTrip(t *testing.T) {
	for _, h := range heads {
		var c loss.Config
		for i, p := range everyLoss(h.output, h.classes) {
			c = append(c, loss.Term{Weight: 1 + float64(i)/3, Parameters: p})
		}
		b, err := json.Marshal(c)
		require.NoError(t, err)
		var back loss.Config
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, c, back)
		_, err = back.New(h.output, h.classes)
		require.NoError(t, err)
	}
}

// A missing field has its default; 0 is a value like others.
func TestConfigDefaults(t *testing.T) {
	var c loss.Config
	require.NoError(t, json.Unmarshal([]byte(`[
		{"name": "cross_entropy"}, {"name": "bce"}, {"name": "dice"}, {"name": "jaccard"},
		{"name": "tversky"}, {"name": "focal", "parameters": {}}, {"name": "lovasz"},
		{"name": "focal", "weight": 2, "parameters": {"gamma": 0}}]`), &c))
	require.Equal(t, loss.Config{
		{Weight: 1, Parameters: loss.CrossEntropy{}},
		{Weight: 1, Parameters: loss.BCE{}},
		{Weight: 1, Parameters: loss.Dice{Region: loss.Region{Eps: 1e-7}}},
		{Weight: 1, Parameters: loss.Jaccard{Region: loss.Region{Eps: 1e-7}}},
		{Weight: 1, Parameters: loss.Tversky{Region: loss.Region{Eps: 1e-7}, Alpha: 0.5, Beta: 0.5, Gamma: 1}},
		{Weight: 1, Parameters: loss.Focal{Gamma: 2}},
		{Weight: 1, Parameters: loss.Lovasz{}},
		{Weight: 2, Parameters: loss.Focal{Gamma: 0}},
	}, c)
	require.Equal(t, loss.Config{{Weight: 1, Parameters: loss.CrossEntropy{}}}, loss.DefaultConfig(data.Softmax))
	require.Equal(t, loss.Config{{Weight: 1, Parameters: loss.BCE{}}}, loss.DefaultConfig(data.Sigmoid))
}

func TestConfigRefuses(t *testing.T) {
	const all = "cross_entropy, bce, dice, jaccard, tversky, focal, lovasz"
	region := "wanted smooth, eps, log, per_image, count_absent, probability, classes, class_weights, ignore_index"
	for text, want := range map[string]string{
		`[{"name": "dise"}]`:                                   `loss: name "dise", wanted one of ` + all,
		`[{"nam": "dice"}]`:                                    `loss: unknown field "nam", wanted name, weight, parameters`,
		`[{"name": "dice", "weight": ""}]`:                     "loss: json: cannot unmarshal string",
		`[{"name": "dice", "parameters": {"smoth": 1}}]`:       `loss: parameters of dice: unknown field "smoth", ` + region,
		`[{"name": "tversky", "parameters": {"smoth": 1}}]`:    region + ", alpha, beta, gamma",
		`[{"name": "lovasz", "parameters": {"per_image": 1}}]`: "loss: parameters of lovasz: json: cannot unmarshal number",
	} {
		var c loss.Config
		require.ErrorContains(t, json.Unmarshal([]byte(text), &c), want, text)
	}
	_, err := json.Marshal(loss.Config{{Weight: 1}})
	require.ErrorContains(t, err, "loss: a term without parameters, wanted those of "+all)

	dice := func(change func(d *loss.Dice)) loss.Config {
		return loss.Config{{Weight: 1, Parameters: with(loss.DefaultDice(), change)}}
	}
	one := func(p loss.Parameters) loss.Config { return loss.Config{{Weight: 1, Parameters: p}} }
	for want, c := range map[string]loss.Config{
		"loss: no losses, wanted at least one of " + all: {},
		"loss: term 0 has weight 0":                      {{Weight: 0, Parameters: loss.CrossEntropy{}}},
		"loss: term 0 has no parameters":                 {{Weight: 1}},
		"loss: bce: needs a sigmoid":                     one(loss.BCE{}),
		"loss: cross_entropy: 2 class_weights for 3 channels of scores (softmax, 3 classes)": one(loss.CrossEntropy{ClassWeights: []float64{1, 2}}),
		"loss: cross_entropy: class_weights [1 -1 0], wanted finite ones":                    one(loss.CrossEntropy{ClassWeights: []float64{1, -1, 0}}),
		"loss: cross_entropy: class_weights [0 0 0], wanted one above 0":                     one(loss.CrossEntropy{ClassWeights: make([]float64, 3)}),
		"loss: cross_entropy: label_smoothing 1, wanted":                                     one(loss.CrossEntropy{LabelSmoothing: 1}),
		"loss: cross_entropy: ignore_index 2 is one of the 3 classes":                        one(loss.CrossEntropy{IgnoreIndex: new(2)}),
		"loss: dice: eps 0, wanted more than 0, such as 1e-7":                                one(loss.Dice{}),
		"loss: dice: smooth -1":                                                           dice(func(d *loss.Dice) { d.Smooth = -1 }),
		"loss: dice: count_absent with smooth 0":                                          dice(func(d *loss.Dice) { d.CountAbsent = true }),
		"loss: dice: classes [3], wanted some of 0 to 2":                                  dice(func(d *loss.Dice) { d.Classes = []int{3} }),
		"loss: dice: classes [1 1]: 1 occurs twice":                                       dice(func(d *loss.Dice) { d.Classes = []int{1, 1} }),
		"loss: dice: no classes":                                                          dice(func(d *loss.Dice) { d.Classes = []int{} }),
		"loss: dice: class_weights [0 1 1] are 0 for all classes [0]":                     dice(func(d *loss.Dice) { d.Classes, d.ClassWeights = []int{0}, []float64{0, 1, 1} }),
		"loss: tversky: gamma 0, wanted more than 0":                                      one(with(loss.DefaultTversky(), func(t *loss.Tversky) { t.Gamma = 0 })),
		"loss: focal: gamma -1":                                                           one(loss.Focal{Gamma: -1}),
		"loss: focal: alpha 2, wanted 0 to 1":                                             one(loss.Focal{Alpha: new(2.0)}),
		"loss: focal: alpha needs a sigmoid; with softmax over the classes, set one_vs_r": one(loss.Focal{Alpha: new(0.5)}),
		"loss: focal: class_weights need a sigmoid":                                       one(loss.Focal{ClassWeights: []float64{1, 1, 1}}),
		"loss: focal: reduced_threshold 0, wanted more than 0":                            one(loss.Focal{ReducedThreshold: new(0.0)}),
	} {
		_, err := c.New(data.Softmax, 3)
		require.ErrorContains(t, err, want)
	}
	for want, p := range map[string]loss.Parameters{
		"loss: cross_entropy: needs softmax":                       loss.CrossEntropy{},
		"loss: lovasz: count_absent needs softmax":                 loss.Lovasz{CountAbsent: true},
		"loss: jaccard: classes [0], wanted some of 1 to 2":        with(loss.DefaultJaccard(), func(j *loss.Jaccard) { j.Classes = []int{0} }),
		"loss: bce: 3 pos_weight for 2 channels of scores (sigmoi": loss.BCE{PosWeight: []float64{1, 1, 1}},
	} {
		_, err := p.New(data.Sigmoid, 3)
		require.ErrorContains(t, err, want)
	}
	_, err = loss.DefaultDice().New(data.Softmax, 1)
	require.ErrorContains(t, err, "loss: dice: 1 classes, wanted at least 2")
	_, err = loss.DefaultDice().New(7, 2)
	require.ErrorContains(t, err, "wanted softmax or sigmoid")
}
