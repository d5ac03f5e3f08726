package ensemble

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/feed"
	"github.com/hcunet/hcunet/internal/random"
	"github.com/hcunet/hcunet/nn"
	_ "github.com/hcunet/hcunet/resnet" // encoders
	"github.com/hcunet/hcunet/unet"
)

// startWeights reads the weights to start from, and downloads published ones by
// name. It returns nil if the run starts from random weights.
func (r *run) startWeights(ctx context.Context) (*checkpoint.File, error) {
	path := r.cfg.Weights
	if path == "" {
		return nil, nil
	}
	if _, err := os.Stat(path); err != nil {
		if _, known := checkpoint.FindPublished(path); known {
			path, err = checkpoint.Fetch(ctx, path, &checkpoint.FetchOptions{Progress: r.opt.Progress.Bytes(path)})
			r.opt.Progress.End()
			if err != nil {
				return nil, err
			}
		}
	}
	f, err := checkpoint.Open(path)
	if err == nil && len(f.Tensors) == 0 {
		err = fmt.Errorf("%s holds no tensors; give torchvision's weights of the encoder, or those of a whole network", path)
	}
	return f, err
}

// whole returns whether weights are those of a whole network.
func whole(f *checkpoint.File) bool { return strings.HasPrefix(f.Tensors[0].Name, "layers.") }

// network returns a new network for a fold, with the weights to start from if there
// are any. Random weights differ between folds, and are the same in every run with
// the same seed.
func (r *run) network(f int) (net *unet.Net, err error) {
	seed := random.New(uint64(r.cfg.Seed), "weights", uint64(f)).Uint64()
	channels := cmp.Or(len(r.cfg.Input.Mean), r.cfg.Task.Channels)
	in := nn.NewInit(r.opt.Device, seed)
	if net, err = unet.Build(in, int64(channels), int64(r.cfg.Task.Outputs()), r.cfg.Network); err != nil || r.weights == nil {
		return net, err
	}
	if whole(r.weights) {
		err = nn.LoadState(net, r.weights)
	} else {
		err = net.Encoder().LoadWeights(r.weights)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.cfg.Weights, err)
	}
	return net, nil
}

// tryNetwork builds the first network, to check that the weights fit and that it
// accepts the images.
func (r *run) tryNetwork() (err error) {
	nn.Scope(func() {
		var net *unet.Net
		if net, err = r.network(0); err == nil {
			err = net.CheckSize(r.cfg.Size, r.cfg.Size)
		}
		if err == nil {
			_, err = r.learner(0, net, nil)
		}
	})
	return err
}

// trainedOnKey is the entry in the metadata of a network's weights that says on which
// images it was trained: the digests of their values, 8 bytes each, sorted, in
// base64.
const trainedOnKey = "hcunet.trained_on"

// trainedOn returns the entry for images, together with the images on which the
// start weights were trained.
func (r *run) trainedOn(images *feed.Images) string {
	digests := digestsIn(r.weights)
	for i := range images.Len() {
		digests = append(digests, images.Digest(i))
	}
	slices.Sort(digests)
	var b []byte
	for _, d := range slices.Compact(digests) {
		b = binary.BigEndian.AppendUint64(b, d)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// digestsIn returns the digests in the metadata of weights.
func digestsIn(f *checkpoint.File) (digests []uint64) {
	if f == nil {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(f.Metadata[trainedOnKey])
	if err != nil {
		return nil
	}
	for ; len(b) >= 8; b = b[8:] {
		digests = append(digests, binary.BigEndian.Uint64(b))
	}
	return digests
}

// leaks returns an error if the start weights were trained on held-out images.
func (r *run) leaks() error {
	if r.opt.AllowLeak {
		return nil
	}
	seen := map[uint64]bool{}
	for _, d := range digestsIn(r.weights) {
		seen[d] = true
	}
	for f, held := range r.folds {
		if r.opt.Fold >= 0 && f != r.opt.Fold {
			continue
		}
		n, first := 0, ""
		for _, i := range held {
			if seen[r.images.Digest(i)] {
				n++
				first = cmp.Or(first, r.images.Name(i))
			}
		}
		if n > 0 {
			return fmt.Errorf("the weights %s were trained on %d of the %d images that fold %d holds out, such as %s: its score would be of images that the network knows; start from other weights, or allow it with -allow-leak",
				r.cfg.Weights, n, len(held), f, first)
		}
	}
	return nil
}
