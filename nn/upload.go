package nn

import torch "github.com/wangkuiyi/gotorch"

// An upload gathers numbers that go to a device in one copy.
type upload struct {
	values []float64
	parts  []uploadPart
}

type uploadPart struct {
	tensor   *torch.Tensor
	from, to int
	shape    []int64
}

// add returns the tensor of values, which run sets.
func (u *upload) add(values []float64, shape ...int64) *torch.Tensor {
	t := new(torch.Tensor)
	u.parts = append(u.parts, uploadPart{t, len(u.values), len(u.values) + len(values), shape})
	u.values = append(u.values, values...)
	return t
}

func (u *upload) run(d Device) {
	all, err := FromSlice(d, u.values, int64(len(u.values)))
	must(err)
	for _, p := range u.parts {
		*p.tensor = Reshape(Narrow(all, 0, int64(p.from), int64(p.to-p.from)), p.shape...)
	}
}
