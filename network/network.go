// Package network says which choices there are in a U-Net with hypercolumns, without
// the layers behind them: a description that goes to JSON and comes back equal.
// Package unet builds what it describes on libtorch, predict/onnxfile writes it as an
// ONNX file.
package network

import (
	"fmt"

	"github.com/hcunet/hcunet/internal/words"
)

// Config holds the choices of a network other than its sizes. The zero value is the
// notebook's network, with gradients through the skips; it goes to JSON and comes
// back equal.
type Config struct {
	Encoder        string      `json:"encoder"`         // its registered name, such as "resnet34"
	NoHypercolumns bool        `json:"no_hypercolumns"` // a plain U-Net: fastai's DynamicUnet
	Blur           Blur        `json:"blur"`            // which upsampling steps blur
	SelfAttention  bool        `json:"self_attention"`  // self-attention in the second block
	NoLastCross    bool        `json:"no_last_cross"`   // no joining of the image itself, and no residual block, at the end
	Bottle         bool        `json:"bottle"`          // half the width inside the last residual block
	YRange         *[2]float64 `json:"y_range"`         // a sigmoid into this range at the end; nil for none
	Norm           Norm        `json:"norm"`            // of the decoder's convolutions
	DetachSkips    bool        `json:"detach_skips"`    // no gradient through the skip connections, as in fastai 1.0.54
}

// Check returns an error for the first choice that cannot be. It does not look
// for the encoder; unet.Build does.
func (c Config) Check() error {
	if _, err := c.Blur.MarshalText(); err != nil {
		return err
	}
	if _, err := c.Norm.MarshalText(); err != nil {
		return err
	}
	if r := c.YRange; r != nil && !(r[0] < r[1]) {
		return fmt.Errorf("network: y_range is from %v to %v, wanted a lower number first", r[0], r[1])
	}
	return nil
}

// A Blur says which upsampling steps end in a 2x2 average.
type Blur int

const (
	BlurAll   Blur = iota // every step, as fastai 1.0.54 does whatever it is asked for
	BlurInner             // all but the last block and the final upsampling
	BlurNone              // none
)

var blurs = words.Choice[Blur]{What: "network: blur", Words: []string{"all", "inner", "none"}}

func (b Blur) String() string { return blurs.Word(b) }

// Final says whether the last two steps blur, Inner whether those before them do.
func (b Blur) Final() bool { return b == BlurAll }
func (b Blur) Inner() bool { return b != BlurNone }

// MarshalText returns "all", "inner" or "none".
func (b Blur) MarshalText() ([]byte, error) { return blurs.Marshal(b) }

// UnmarshalText reads what MarshalText writes.
func (b *Blur) UnmarshalText(text []byte) (err error) {
	*b, err = blurs.Parse(text)
	return err
}

// A Norm is the kind of normalization in a block of layers.
type Norm int

const (
	NormNone      Norm = iota // none; convolutions have a bias
	NormBatch                 // batch norm after the activation; no bias
	NormBatchZero             // as NormBatch: fastai 1.0.54 ignores the difference here
	NormWeight                // weight norm on the convolution
	NormSpectral              // spectral norm on the convolution
)

var norms = words.Choice[Norm]{What: "network: norm", Words: []string{"none", "batch", "batch_zero", "weight", "spectral"}}

func (n Norm) String() string { return norms.Word(n) }

// MarshalText returns "none", "batch", "batch_zero", "weight" or "spectral".
func (n Norm) MarshalText() ([]byte, error) { return norms.Marshal(n) }

// UnmarshalText reads what MarshalText writes.
func (n *Norm) UnmarshalText(text []byte) (err error) {
	*n, err = norms.Parse(text)
	return err
}
