package resnet

// Open to the tests.
var (
	TorchvisionName = torchvisionName
	Architecture    = architecture
)
