package train

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/hcunet/hcunet/checkpoint"
)

// A Saver writes the state of a run to a file from time to time, and keeps the
// state before it.
type Saver struct {
	Path string

	// Every is the shortest time between two states. 0 means fifty times as long as
	// the last state took to write, so that saving takes under 2 % of the time. The
	// first state, whose time is not known, is then written after two minutes.
	Every time.Duration

	began, next time.Time
	spent       time.Duration // on all states
}

// Previous is appended to the file name of a state when a newer state takes its
// place.
const Previous = ".previous"

const (
	saveShare = 50
	firstSave = 2 * time.Minute // fifty times the 2.4 s that the notebook's network takes
)

// Hook returns the hook that saves when it is time.
func (s *Saver) Hook() Hook { return Hook{Pause: s.SaveDue, PauseDue: s.due} }

// SaveDue writes the state if it is time, or if a hook has just returned [Stop].
func (s *Saver) SaveDue(l *Learner) error {
	if !s.due() && !l.stopping() {
		return nil
	}
	return s.Save(l)
}

// due returns whether it is time for a state.
func (s *Saver) due() bool {
	if s.began.IsZero() {
		s.began = time.Now()
		s.next = s.began.Add(s.Every) // no state is needed right after the beginning
		if s.Every == 0 {
			s.next = s.began.Add(firstSave)
		}
	}
	return !time.Now().Before(s.next)
}

// Save writes the state now.
func (s *Saver) Save(l *Learner) error {
	start := time.Now()
	state, err := l.State()
	if err != nil {
		return err
	}
	if err := os.Rename(s.Path, s.Path+Previous); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("train: keeping the state before: %w", err)
	}
	if err := checkpoint.SaveSafetensors(s.Path, state); err != nil {
		return err
	}
	s.saved(time.Now(), time.Since(start))
	return nil
}

// saved sets when the next state is written, after one that took so long.
func (s *Saver) saved(now time.Time, took time.Duration) {
	s.spent += took
	if s.Every != 0 {
		s.next = now.Add(s.Every)
		return
	}
	s.next = now.Add(saveShare * took)
	// The first state may have come too early for the time that it took.
	if enough := s.began.Add(saveShare * (s.spent + took)); enough.After(s.next) {
		s.next = enough
	}
}

// Resume loads the newest complete state into a new learner; found is false if
// there is no state. It returns an error if a state belongs to another run, or if
// the only state is damaged.
func (s *Saver) Resume(l *Learner) (found bool, err error) {
	var torn error
	for _, path := range []string{s.Path, s.Path + Previous} {
		f, err := checkpoint.OpenSafetensors(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			torn = errors.Join(torn, err)
			continue
		}
		if err := l.SetState(f); err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
		return true, nil
	}
	return false, torn
}
