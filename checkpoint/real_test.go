package checkpoint_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/internal/golden"
)

// A checkpoint that PyTorch 0.4 wrote on CUDA in the old format. The digest is
// over name, str(list(shape)) and bytes of each tensor of d["state_dict"] in
// order, after torch.load(..., map_location="cpu") with torch 1.13.1.
func TestResNet20(t *testing.T) {
	f, err := checkpoint.Open(golden.Path(t, "data/torch-checkpoints/resnet20-12fca82f.th"))
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	elements := 0
	for _, x := range f.Tensors {
		io.WriteString(h, x.Name)
		io.WriteString(h, strings.ReplaceAll(fmt.Sprint(x.Shape), " ", ", "))
		h.Write(x.Data)
		elements += x.Len()
	}
	const want = "5bae4e4d18ddf72ece413253dd98240cd06cc25045d884a62846fe34a52c9cd1"
	if got := fmt.Sprintf("%x", h.Sum(nil)); len(f.Tensors) != 97 || elements != 271098 || got != want {
		t.Errorf("%d tensors, %d elements, digest %s; want 97, 271098, %s", len(f.Tensors), elements, got, want)
	}
}
