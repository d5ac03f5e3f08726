package resnet

import (
	"fmt"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/nn"
)

// LoadTorchvision copies torchvision's weights of the same ResNet, such as
// resnet34-333f7ec4.pth, into e. The classifier ("fc.") is left out; any other
// difference is a *[nn.Mismatch] that lists all of them under e's names, or as
// they are where e has none.
func (e *Encoder) LoadTorchvision(f *checkpoint.File) error {
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

// torchvisionName returns the name that torchvision's resnet gives a tensor of
// the encoder's state: "4.0.conv1.weight" is "layer1.0.conv1.weight" there.
func torchvisionName(name string) (string, error) {
	part, rest, ok := strings.Cut(name, ".")
	theirs, known := map[string]string{
		"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4",
	}[part]
	if !ok || !known {
		return "", fmt.Errorf("resnet: %q is no tensor of an encoder", name)
	}
	return theirs + "." + rest, nil
}
