// Package random gives every purpose of a run its own stream of random numbers.
//
// A stream is named by the run's seed, a purpose, and numbers such as fold, epoch
// and image. Streams of different names are independent: the generator's whole
// 256-bit key is a hash of the name, so that no arithmetic on seeds can make two
// purposes meet.
package random

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
)

// New returns the stream of a seed, a purpose and its numbers, from its beginning.
// The same name gives the same numbers on every machine.
func New(seed uint64, purpose string, numbers ...uint64) *rand.Rand {
	name := binary.BigEndian.AppendUint64(nil, seed)
	name = binary.BigEndian.AppendUint64(name, uint64(len(purpose)))
	name = append(name, purpose...)
	for _, n := range numbers {
		name = binary.BigEndian.AppendUint64(name, n)
	}
	return rand.New(rand.NewChaCha8(sha256.Sum256(name)))
}
