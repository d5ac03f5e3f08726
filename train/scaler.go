package train

// A scaler keeps the factor of the loss in float16: small gradients would vanish
// otherwise. It halves when gradients overflow and doubles after a long time
// without.
//
// Source: torch.cuda.amp.GradScaler of PyTorch 1.13, with its defaults.
type scaler struct {
	Scale   float64 `json:"scale"`   // 0 in other precisions
	Good    int     `json:"good"`    // steps since it last changed
	Skipped int     `json:"skipped"` // steps left out
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

// update follows each step, which was left out if its gradients were not finite.
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
