package train

// A scaler holds the factor by which the loss is multiplied in float16, so that
// small gradients do not become 0. The factor is halved when gradients overflow,
// and doubled after many steps without overflow.
//
// Source: torch.cuda.amp.GradScaler of PyTorch 1.13, with its defaults.
type scaler struct {
	Scale   float64 `json:"scale"`   // 0 in other precisions
	Good    int     `json:"good"`    // steps since it last changed
	Skipped int     `json:"skipped"` // number of skipped steps
}

const (
	firstScale     = 65536.0
	scaleGrowth    = 2.0
	scaleBackoff   = 0.5
	growthInterval = 2000
)

func newScaler(p Precision) scaler {
	if p == Float16 {
		return scaler{Scale: firstScale}
	}
	return scaler{}
}

func (s *scaler) on() bool { return s.Scale > 0 }

// scale returns the factor of the loss.
func (s *scaler) scale() float64 {
	if s.on() {
		return s.Scale
	}
	return 1
}

// update is called after each step. A step is skipped if its gradients are not
// finite.
func (s *scaler) update(finite bool) {
	if !finite {
		s.Scale *= scaleBackoff
		s.Good = 0
		s.Skipped++
		return
	}
	if s.Good++; s.Good == growthInterval {
		s.Scale *= scaleGrowth
		s.Good = 0
	}
}
