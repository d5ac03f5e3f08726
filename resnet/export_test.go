package resnet

// Exported for the tests.
var (
	TorchvisionName = torchvisionName
	Architecture    = architecture
)
