package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hcunet/hcunet/checkpoint"
	"github.com/hcunet/hcunet/nn"
)

// A state is a safetensors file. It has the tensors of the model, the
// optimizer, the gathered gradients and the hooks with these prefixes, and
// everything else as JSON under the keys below.
const (
	modelPart     = "model."
	optimizerPart = "optimizer."
	gradientPart  = "gradient."
	hookPart      = "hook."

	stateKey     = "hcunet.train.state" // the format's version
	stateVersion = "1"
	configKey    = "hcunet.train.config"
	standingKey  = "hcunet.train.standing"
	hooksKey     = "hcunet.train.hooks"     // metadata of each
	optimizerKey = "hcunet.train.optimizer" // metadata
)

// resumed is the part of a state that an interrupted phase needs.
type resumed struct{ optimizer, gradients *checkpoint.File }

// State returns everything that is needed to continue with exactly the same
// result: weights, running statistics, the optimizer, gathered gradients, the
// position in the schedule and in the data, the memories of the hooks, and the
// epochs so far. Random streams have no state, because random numbers depend only
// on the position. State may be called from Pause of a [Hook], and when the
// learner is not working.
//
// If weights are not finite it returns an error, so that the state that was
// saved before stays the last good one.
func (l *Learner) State() (*checkpoint.File, error) {
	if !l.pausing {
		if !l.busy.TryLock() {
			return nil, fmt.Errorf("%w; in a hook, Pause is the moment for the state", ErrBusy)
		}
		defer l.busy.Unlock()
	}
	if err := l.checkWeights(); err != nil {
		return nil, fmt.Errorf("train: no state is saved: %w", err)
	}
	f := &checkpoint.File{Metadata: map[string]string{stateKey: stateVersion}}
	note := func(key string, v any) error {
		text, err := json.Marshal(v)
		f.Metadata[key] = string(text)
		return err
	}
	err := errors.Join(note(configKey, l.cfg), note(standingKey, l.at))
	model, modelErr := nn.SaveState(l.model)
	if err = errors.Join(err, modelErr); err != nil {
		return nil, err
	}
	join(f, modelPart, model)
	if l.run != nil && l.at.Phase != nil {
		optimizer, err := l.run.optimizer.State()
		if err != nil {
			return nil, err
		}
		join(f, optimizerPart, optimizer)
		if err := note(optimizerKey, optimizer.Metadata); err != nil {
			return nil, err
		}
		g, err := gradients(l.params)
		if err != nil {
			return nil, err
		}
		gradients, err := nn.SaveState(g)
		if err != nil {
			return nil, err
		}
		join(f, gradientPart, gradients)
	}
	notes := map[string]map[string]string{}
	for _, h := range l.parts.Hooks {
		if h.Memory == nil {
			continue
		}
		memory, err := h.Memory.State()
		if err != nil {
			return nil, fmt.Errorf("train: the memory of hook %s: %w", h.Name, err)
		}
		notes[h.Name] = memory.Metadata
		join(f, hookPart+h.Name+".", memory)
	}
	return f, note(hooksKey, notes)
}

// SaveState writes the state to a file. It writes a temporary file, syncs it and
// renames it, so that the file is complete at any moment.
func (l *Learner) SaveState(path string) error {
	f, err := l.State()
	if err != nil {
		return err
	}
	return checkpoint.SaveSafetensors(path, f)
}

// LoadState reads a state into a new learner. The learner must have the same
// model, task, configuration and hooks as the one that saved the state.
// [Learner.Fit] then continues the run. After an error the learner must not be
// used.
func (l *Learner) LoadState(path string) error {
	f, err := checkpoint.OpenSafetensors(path)
	if err != nil {
		return err
	}
	if f.Digest == "" {
		return fmt.Errorf("train: %s carries no digest of itself, so that it is no file of SaveState, or a damaged one; take the state before it (%s)", path, Previous)
	}
	if err := l.SetState(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// SetState is like LoadState, for a state that State returned.
func (l *Learner) SetState(f *checkpoint.File) error {
	if !l.busy.TryLock() {
		return ErrBusy
	}
	defer l.busy.Unlock()
	if l.called > 0 || l.resumed != nil {
		return errors.New("train: a state is for a new learner; this one has trained, or has a state already")
	}
	if v := f.Metadata[stateKey]; v != stateVersion {
		return fmt.Errorf("train: no state of a run of version %s (%d tensors, version %q)", stateVersion, len(f.Tensors), v)
	}
	config, err := json.Marshal(l.cfg)
	if err != nil {
		return err
	}
	if was := f.Metadata[configKey]; was != string(config) {
		return fmt.Errorf("train: the state is of a run with the configuration %s, this one has %s", was, config)
	}
	var at standing
	if err := json.Unmarshal([]byte(f.Metadata[standingKey]), &at); err != nil {
		return fmt.Errorf("train: where the state's run stands: %w", err)
	}
	if p := at.Phase; p != nil && (p.Batch < 0 || p.Batch > p.Batches || p.Iteration < 0) {
		return fmt.Errorf("train: the state stands at batch %d of %d, iteration %d", p.Batch, p.Batches, p.Iteration)
	}
	var notes map[string]map[string]string
	if err := json.Unmarshal([]byte(f.Metadata[hooksKey]), &notes); err != nil {
		return fmt.Errorf("train: the hooks of the state: %w", err)
	}
	if err := nn.LoadState(l.model, part(f, modelPart)); err != nil {
		return err
	}
	for _, h := range l.parts.Hooks {
		if h.Memory == nil {
			continue
		}
		note, ok := notes[h.Name]
		if !ok {
			return fmt.Errorf("train: the state's run had no hook %s; it must have the same hooks", h.Name)
		}
		memory := part(f, hookPart+h.Name+".")
		memory.Metadata = note
		if err := h.Memory.SetState(memory); err != nil {
			return err
		}
		delete(notes, h.Name)
	}
	for name := range notes {
		return fmt.Errorf("train: the state's run had a hook %s, this one has not; it must have the same hooks", name)
	}
	l.at = at
	if at.Phase != nil {
		l.resumed = &resumed{optimizer: part(f, optimizerPart), gradients: part(f, gradientPart)}
		return json.Unmarshal([]byte(f.Metadata[optimizerKey]), &l.resumed.optimizer.Metadata)
	}
	return nil
}

// resume restores the optimizer and the gradients of a state, if there is one.
func (r *run) resume() error {
	was := r.resumed
	if r.resumed = nil; was == nil {
		return nil
	}
	if err := r.optimizer.LoadState(was.optimizer); err != nil {
		return err
	}
	// Several processes add up what each has gathered, when the batch comes that completes
	// a step: the first one alone brings what is in the state. The gradients of an
	// epoch's last batch are the sums already, and each process needs them.
	if !r.first() && r.at.Batch < r.at.Batches {
		return nil
	}
	return setGradients(r.params, was.gradients)
}

// join adds the tensors of a part of a state.
func join(f *checkpoint.File, prefix string, part *checkpoint.File) {
	for _, t := range part.Tensors {
		t.Name = prefix + t.Name
		f.Tensors = append(f.Tensors, t)
	}
}

// part returns the tensors of a part of a state.
func part(f *checkpoint.File, prefix string) *checkpoint.File {
	p := &checkpoint.File{}
	for _, t := range f.Tensors {
		if name, ok := strings.CutPrefix(t.Name, prefix); ok {
			t.Name = name
			p.Tensors = append(p.Tensors, t)
		}
	}
	return p
}

// tensors makes a module of named tensors, so that they can be saved and loaded
// like one.
type tensors []nn.Named

// Walk visits the tensors.
func (ts tensors) Walk(w nn.Walker) {
	for _, t := range ts {
		w.Buffer(t.Name, t.Tensor)
	}
}

func (tensors) String() string { return "tensors" }

// gradients returns the gradients that exist, with the names of their
// parameters.
func gradients(params []nn.Named) (ts tensors, err error) {
	err = nn.Try(func() {
		for _, p := range params {
			if g, ok := nn.Grad(p.Tensor); ok {
				ts = append(ts, nn.Named{Name: p.Name, Tensor: g})
			}
		}
	})
	return ts, err
}

// setGradients sets the gradients of the parameters to those that gradients
// returned.
func setGradients(params []nn.Named, f *checkpoint.File) error {
	var ts tensors
	err := nn.Try(func() {
		for _, p := range params {
			if _, ok := f.Lookup(p.Name); !ok {
				continue
			}
			g := nn.Zeros(nn.DeviceOf(p.Tensor), nn.DTypeOf(p.Tensor), nn.Shape(p.Tensor)...)
			nn.SetGrad(p.Tensor, g)
			ts = append(ts, nn.Named{Name: p.Name, Tensor: g})
		}
	})
	if err != nil {
		return err
	}
	return nn.LoadState(ts, f)
}
