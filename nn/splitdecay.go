package nn

// SplitDecay halves each group of parameters for an optimizer that decays the
// weights of layers otherwise than their offsets: first the weights, then the
// batch norms' parameters and the convolutions' biases. Each half keeps the order
// of its group and may be empty. What is frozen now is left out, except frozen
// biases (see OptimizerConfig.DecayFrozenBias). OptimizerConfig.New takes the
// result, Step then one Hyper for each half.
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
