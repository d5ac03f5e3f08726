package nn

// SplitDecay splits each group of parameters into two, so that an optimizer can give
// them different weight decay. The second holds the parameters of BatchNorm2d layers
// and the biases of Conv2d layers, the first all other parameters. Both keep the order
// of the group and may be empty. Parameters that are frozen at the time of the call
// are left out, except the biases of Conv2d layers (see
// OptimizerConfig.DecayFrozenBias). The result has twice as many groups; it is meant
// for OptimizerConfig.New.
//
// Source: fastai 1.0.54, torch_core.py, split_no_wd_params.
func SplitDecay(groups [][]Named) [][]Named {
	halves := make([][]Named, 0, 2*len(groups))
	for _, g := range groups {
		var weights, offsets []Named
		for _, p := range g {
			norm, bias := false, false
			switch owner := p.Owner.(type) {
			case *BatchNorm2d:
				norm = true
			case *Conv2d:
				bias = p.Tensor.T == owner.Bias.T
			}
			switch {
			case bias:
				offsets = append(offsets, p)
			case !RequiresGrad(p.Tensor):
			case norm:
				offsets = append(offsets, p)
			default:
				weights = append(weights, p)
			}
		}
		halves = append(halves, weights, offsets)
	}
	return halves
}
