package resnet

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/nn"
)

// LoadWeights copies torchvision's weights of the same ResNet, such as
// resnet34-b627a593.pth, into e. The classifier ("fc.") is ignored. Weights of another
// ResNet are an error that names that ResNet. Any other difference is an *[nn.Mismatch]
// that lists all differences; it uses the names of e's tensors, and the file's names for
// tensors that e does not have. After an error e is unchanged.
func (e *Encoder) LoadWeights(f *checkpoint.File) error {
	if name := architecture(f); name != "" && name != e.name {
		return fmt.Errorf("resnet: these are weights of a %s, wanted %s", name, e.name)
	}
	ours := map[string]string{}
	for _, n := range nn.State(e) {
		name, err := torchvisionName(n.Name)
		if err != nil {
			return err
		}
		ours[name] = n.Name
	}
	renamed := &checkpoint.File{}
	for _, t := range f.Tensors {
		if strings.HasPrefix(t.Name, "fc.") {
			continue
		}
		if name, ok := ours[t.Name]; ok {
			t.Name = name
		}
		renamed.Tensors = append(renamed.Tensors, t)
	}
	return nn.LoadState(e, renamed)
}

// architecture returns the name of the ResNet whose torchvision weights f holds, or ""
// if it does not hold those of a known ResNet.
func architecture(f *checkpoint.File) string {
	var blocks [4]int
	bottleneck := false
	for _, t := range f.Tensors {
		stage, rest, _ := strings.Cut(t.Name, ".")
		number, rest, _ := strings.Cut(rest, ".")
		s, ok := map[string]int{"layer1": 0, "layer2": 1, "layer3": 2, "layer4": 3}[stage]
		i, err := strconv.Atoi(number)
		if !ok || err != nil || i < 0 || i >= len(f.Tensors) {
			continue
		}
		blocks[s] = max(blocks[s], i+1)
		bottleneck = bottleneck || rest == "conv3.weight"
	}
	// He et al., table 1.
	if bottleneck {
		return map[[4]int]string{{3, 4, 6, 3}: "resnet50", {3, 4, 23, 3}: "resnet101", {3, 8, 36, 3}: "resnet152"}[blocks]
	}
	return map[[4]int]string{blocks18: "resnet18", blocks34: "resnet34"}[blocks]
}

// torchvisionName returns torchvision's name for a tensor of the encoder's state:
// "layer1.0.conv1.weight" for "4.0.conv1.weight".
func torchvisionName(name string) (string, error) {
	part, rest, ok := strings.Cut(name, ".")
	theirs, known := map[string]string{
		"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4",
	}[part]
	if !ok || !known {
		return "", fmt.Errorf("resnet: %q is not a tensor of an encoder", name)
	}
	return theirs + "." + rest, nil
}
