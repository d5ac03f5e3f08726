package resnet

// TorchvisionName is open to the tests.
var TorchvisionName = torchvisionName
