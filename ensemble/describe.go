package ensemble

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/report"
)

// describe writes files about a run before it begins: its modules, and the first
// training images.
func (r *run) describe(ctx context.Context) (err error) {
	var text string
	nn.Scope(func() {
		net, e := r.network(0)
		if err = e; err == nil {
			text = nn.Summary(net)
		}
	})
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFile(r.out.path("network.txt"), []byte(text)); err != nil {
		return err
	}
	source, err := r.trainSource(0)
	if err != nil {
		return err
	}
	for b, err := range source.Epoch(0, 0) {
		if err != nil {
			return err
		}
		const most = 16
		area := b.H * b.W
		var samples []report.Sample
		for i := range min(b.N, most) {
			img, err := report.ImageOf(b.C, b.H, b.W, b.Images[i*b.C*area:(i+1)*b.C*area])
			if err != nil {
				return err
			}
			samples = append(samples, report.Sample{Caption: source.Name(b.Indices[i]), Image: img, Target: b.Targets[i*area : (i+1)*area]})
		}
		return report.Grid(r.out.path("first_batch.png"), samples, 4, &report.SampleOptions{Title: "First batch of fold 0", Classes: r.cfg.Task.Classes})
	}
	return ctx.Err()
}

// descriptionFacts returns the fields of the description, sorted by name.
func (r *run) descriptionFacts(leaves map[string]string) (out [][2]string) {
	b, err := json.Marshal(r.cfg)
	var tree any
	if err == nil {
		err = json.Unmarshal(b, &tree)
	}
	if err != nil {
		return [][2]string{{"description", fmt.Sprint(err)}}
	}
	flatten(leaves, "", tree)
	for _, name := range slices.Sorted(maps.Keys(leaves)) {
		out = append(out, [2]string{name, strings.TrimSpace(leaves[name])})
	}
	return out
}
