// Package random gives every purpose of a run its own stream of random numbers.
//
// The name of a stream is the seed of the run, a purpose, and numbers such as
// fold, epoch and image. Streams with different names are independent: the
// 256-bit key of the generator is a hash of the name, so that two purposes never
// get the same stream through arithmetic on seeds.
package random

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
)

// New returns the stream of a seed, a purpose and numbers, at its beginning. The
// same name gives the same random numbers on every machine.
func New(seed uint64, purpose string, numbers ...uint64) *rand.Rand {
	name := binary.BigEndian.AppendUint64(nil, seed)
	name = binary.BigEndian.AppendUint64(name, uint64(len(purpose)))
	name = append(name, purpose...)
	for _, n := range numbers {
		name = binary.BigEndian.AppendUint64(name, n)
	}
	return rand.New(rand.NewChaCha8(sha256.Sum256(name)))
}
