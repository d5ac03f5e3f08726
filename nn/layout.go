package nn

import (
	"github.com/hcunet/hcunet/internal/shim"
	torch "github.com/wangkuiyi/gotorch"
)

var opContiguous = shim.NewOp("contiguous")

const channelsLast = 2 // torch.channels_last: the channels of a pixel lie together

// ChannelsLast returns x (N, C, H, W) in the channels-last memory format, in which the
// channels of a pixel lie together. Shape and values are those of x, and [Slice] still
// returns the elements in row-major order.
func ChannelsLast(x torch.Tensor) torch.Tensor { return call(opContiguous, x, channelsLast) }

// SetChannelsLast changes the kernels of m's convolutions to the channels-last memory
// format. A GPU's tensor cores compute in float16 and bfloat16 in this format; kernels and
// images in the default format are rearranged before each convolution. Call it before
// the optimizer is made, whose state takes the format of the parameters.
func SetChannelsLast(m Module) error {
	return Try(func() {
		NoGrad(func() {
			Scope(func() {
				for _, n := range State(m) {
					if len(Shape(n.Tensor)) == 4 {
						must(shim.SetData(n.Tensor, ChannelsLast(n.Tensor)))
					}
				}
			})
		})
	})
}

// SearchConvolutions says whether CUDA's library measures its algorithms at the first
// convolution of each shape and takes the fastest, instead of guessing which it is. It
// pays where the same shapes come many times, and holds for the whole process.
func SearchConvolutions(on bool) { shim.SearchConvolutions(on) }
