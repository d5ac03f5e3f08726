package checkpoint

import (
	"maps"
	"regexp"
	"slices"
)

// generations are the files of torchvision's ImageNet weights that Fetch finds by
// a short name, the oldest first. The first is the file that early releases of
// torchvision and fastai 1 download, a tar archive of PyTorch 0.1. The second is
// the same network in a newer format (IMAGENET1K_V1). A third, if there is one,
// was trained better (IMAGENET1K_V2).
//
// Source: torchvision/models/resnet.py, model_urls of early and late releases,
// and the urls of the ResNet*_Weights.
var generations = map[string][]string{
	"resnet18":  {"resnet18-5c106cde", "resnet18-f37072fd"},
	"resnet34":  {"resnet34-333f7ec4", "resnet34-b627a593"},
	"resnet50":  {"resnet50-19c8e357", "resnet50-0676ba61", "resnet50-11ad3fa6"},
	"resnet101": {"resnet101-5d3b4d8f", "resnet101-63fe2227", "resnet101-cd907fc2"},
	"resnet152": {"resnet152-b121ed2d", "resnet152-394f9c45", "resnet152-f82ba261"},
}

// Generations returns the file names, without extension, of the ImageNet weights of an
// architecture, the oldest first; nil if the architecture is not known.
func Generations(architecture string) []string { return slices.Clone(generations[architecture]) }

// hashedName is a file name that ends in the first digits of its SHA-256, as
// torch.hub writes and checks them.
var hashedName = regexp.MustCompile(`^(([A-Za-z0-9_.]+)-([0-9a-f]{8,64}))(\.(?:pth|pt|safetensors))?$`)

// Published describes weights that PyTorch publishes.
type Published struct {
	Name         string // "resnet34-333f7ec4"
	Architecture string // "resnet34"
	File         string // "resnet34-333f7ec4.pth"
	digits       string
}

// FindPublished returns the weights that Fetch would download for that name. It
// downloads nothing, so a caller can check the architecture first. The name of an
// architecture, such as "resnet34", means the oldest generation of its weights,
// with which fastai 1 starts. Otherwise the name is that of a file that ends in
// its hash, with or without extension: "resnet34-b627a593" or
// "resnet34-b627a593.pth". ok is false for any other name. Only Fetch finds out
// whether the server has the file.
func FindPublished(name string) (p Published, ok bool) {
	if files := generations[name]; files != nil {
		name = files[0]
	}
	m := hashedName.FindStringSubmatch(name)
	if m == nil {
		return Published{}, false
	}
	extension := m[4]
	if extension == "" {
		extension = ".pth"
	}
	return Published{Name: m[1], Architecture: m[2], File: m[1] + extension, digits: m[3]}, true
}

// publishedNames returns the short names and the names of their files.
func publishedNames() []string {
	var out []string
	for _, architecture := range slices.Sorted(maps.Keys(generations)) {
		out = append(out, architecture)
		out = append(out, generations[architecture]...)
	}
	return out
}
