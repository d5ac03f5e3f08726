package ensemble

import "github.com/hcunet/hcunet/internal/words"

// A Split says how images are divided into folds.
type Split int

const (
	AtRandom  Split = iota // at random, as in the notebook: scikit-learn's KFold, shuffled
	ByArea                 // with similar mask areas in all folds
	ByPatient              // all images of a patient in one fold
)

// A RuleChoice says which of the rules that are found on the held-out images
// makes the submission; see metric.Choices.
type RuleChoice int

const (
	PerFold RuleChoice = iota // the mean of the best thresholds of each fold, as in the notebook
	Pooled                    // one threshold, the best of all held-out images together
	Triplet                   // high threshold, smallest area and low threshold
)

var (
	splitWords = words.Choice[Split]{What: "split", Words: []string{"random", "area", "patient"}}
	ruleWords  = words.Choice[RuleChoice]{What: "rule", Words: []string{"per_fold", "pooled", "triplet"}}
)

// String returns "random", "area" or "patient".
func (s Split) String() string { return splitWords.Word(s) }

// MarshalText implements encoding.TextMarshaler.
func (s Split) MarshalText() ([]byte, error) { return splitWords.Marshal(s) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Split) UnmarshalText(b []byte) (err error) { *s, err = splitWords.Parse(b); return err }

// String returns "per_fold", "pooled" or "triplet".
func (r RuleChoice) String() string { return ruleWords.Word(r) }

// MarshalText implements encoding.TextMarshaler.
func (r RuleChoice) MarshalText() ([]byte, error) { return ruleWords.Marshal(r) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *RuleChoice) UnmarshalText(b []byte) (err error) { *r, err = ruleWords.Parse(b); return err }
