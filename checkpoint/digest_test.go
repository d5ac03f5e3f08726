package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The digest is the SHA-256 of the file with zeros for its own digits.
func TestDigestIsOfTheWholeFile(t *testing.T) {
	f := sample()
	f.Metadata = map[string]string{"epoch": "7", "a": "é<&>"}
	var b bytes.Buffer
	require.NoError(t, WriteSafetensors(&b, f))
	g, err := ReadSafetensors(bytes.NewReader(b.Bytes()))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"epoch": "7", "a": "é<&>"}, g.Metadata)
	zeroed := regexp.MustCompile(`"hcunet_sha256":"[0-9a-f]{64}"`).ReplaceAll(b.Bytes(), []byte(`"hcunet_sha256":"`+strings.Repeat("0", 64)+`"`))
	require.Len(t, zeroed, b.Len())
	sum := sha256.Sum256(zeroed)
	require.Equal(t, hex.EncodeToString(sum[:]), g.Digest)
}

// Any changed byte and any cut is an error; the digest finds what the format
// does not.
func TestDigestFindsDamage(t *testing.T) {
	f := &File{Tensors: []Tensor{FromFloat32("w", []float32{1, 2, 3}, 3)}, Metadata: map[string]string{"epoch": "7"}}
	var b bytes.Buffer
	require.NoError(t, WriteSafetensors(&b, f))
	whole := b.Bytes()
	found := 0
	for i := range whole {
		for _, bit := range []byte{1, 0x10, 0x80} {
			c := bytes.Clone(whole)
			c[i] ^= bit
			g, err := ReadSafetensors(bytes.NewReader(c))
			if err == nil {
				// Only the name of the digest's entry can go, and then there
				// is no digest to trust.
				require.Empty(t, g.Digest, "byte %d", i)
				require.NotEqual(t, f.Metadata, g.Metadata, "byte %d", i)
			}
			if _, ok := err.(*DigestError); ok {
				found++
			}
		}
	}
	require.Greater(t, found, 12*3, "every bit of the data, and of names and values")
	for n := range whole {
		_, err := ReadSafetensors(bytes.NewReader(whole[:n]))
		require.Error(t, err, "cut at %d", n)
	}

	for name, digest := range map[string]string{
		"short":                  "00",
		"in two places":          strings.Repeat("ab", 32),
		"of something else":      strings.Repeat("cd", 32),
		"written with an escape": `\u0030` + strings.Repeat("0", 63),
	} {
		header := `{"__metadata__":{"hcunet_sha256":"` + digest + `","x":"` + strings.Repeat("ab", 32) + `"}}`
		_, err := ReadSafetensors(bytes.NewReader(file(header, 0)))
		require.Error(t, err, name)
	}
}

// Files of other programs, which have no digest, are read too.
func TestDigestIsOptional(t *testing.T) {
	f, err := ReadSafetensors(bytes.NewReader(file(`{"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1)))
	require.NoError(t, err)
	require.Empty(t, f.Digest)
	require.Equal(t, map[string]string{"format": "pt"}, f.Metadata)
}
