package ensemble

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hcunet/hcunet/internal/atomicfile"
	"github.com/hcunet/hcunet/internal/folderlock"
	"github.com/hcunet/hcunet/nn"
	"github.com/hcunet/hcunet/train"
)

// Names in the folder of a run. A fold is done when its part exists, which is
// written last.
const (
	configFile = "config.json"
	runFile    = "run.json"
	stateDir   = "state" // states of unfinished folds
	stateFile  = "state.safetensors"
)

// A folder is the folder of a run. Files are written to it completely or not at
// all.
type folder struct {
	dir    string
	locks  []*folderlock.Lock
	digest string // of the description
}

// path returns the path of a file in the folder.
func (o *folder) path(format string, args ...any) string {
	return filepath.Join(o.dir, fmt.Sprintf(format, args...))
}

// stateDir returns the folder for the state of an unfinished fold.
func (o *folder) stateDir(f int) string {
	return filepath.Join(o.dir, stateDir, fmt.Sprintf("fold%d", f))
}

// statePath returns the path of the newest state of a fold.
func (o *folder) statePath(f int) string { return filepath.Join(o.stateDir(f), stateFile) }

// checkFolder checks the output folder before anything is written: it must be
// new or empty, or, to continue a run, the folder of a run with the same
// description.
func checkFolder(dir string, cfg Config, opt Options) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if opt.Resume {
			return fmt.Errorf("no folder %s, so there is no run to continue", dir)
		}
		if opt.Gather {
			return fmt.Errorf("no folder %s, so there are no folds to gather", dir)
		}
		return nil
	case err != nil:
		return err
	case len(entries) == 0:
		return nil
	}
	was, err := OpenConfig(filepath.Join(dir, configFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if onlyOurs(entries) { // a run that was killed before it wrote its description
			return nil
		}
		return fmt.Errorf("the output folder %s is not empty and not the folder of a run (it holds %s); choose another one", dir, entries[0].Name())
	case err != nil:
		return err
	case !opt.Resume && !opt.Gather && opt.Fold < 0 && begun(dir):
		return fmt.Errorf("the output folder %s holds a run already; continue it with -resume, or choose another folder", dir)
	}
	if d := was.Differences(cfg); len(d) > 0 && begun(dir) {
		return fmt.Errorf("the run in %s has another %s; continue it with its own description, or choose another folder", dir, strings.Join(d, ", "))
	}
	return nil
}

// onlyOurs returns whether a folder holds only files that a run writes before its
// description.
func onlyOurs(entries []fs.DirEntry) bool {
	for _, e := range entries {
		if e.Name() != folderlock.File && !temporary(e.Name()) {
			return false
		}
	}
	return true
}

// temporary returns whether a name is that of an unfinished file of atomicfile.
func temporary(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp")
}

// openFolder makes the folder or opens the folder of a run, locks it, and writes
// the description of the run.
func openFolder(cfg Config, opt Options) (*folder, error) {
	if err := os.MkdirAll(opt.Out, 0o777); err != nil {
		return nil, err
	}
	o := &folder{dir: opt.Out}
	if err := o.open(cfg, opt); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *folder) open(cfg Config, opt Options) error {
	lock := folderlock.Exclusive
	if opt.Fold >= 0 { // other processes may train other folds
		lock = folderlock.Shared
	}
	if err := o.lock(opt.Out, lock); err != nil {
		return err
	}
	if opt.Fold < 0 {
		if err := removeTemporary(opt.Out); err != nil {
			return err
		}
	}
	// A description that another version of this program wrote is not changed:
	// checkFolder has found that it means the same, but it may lack newer fields.
	text, err := os.ReadFile(o.path(configFile))
	if err != nil || !begun(opt.Out) {
		if text, err = cfg.JSON(); err != nil {
			return err
		}
		if err := atomicfile.WriteFile(o.path(configFile), text); err != nil {
			return err
		}
	}
	sum := sha256.Sum256(text)
	o.digest = hex.EncodeToString(sum[:])
	return o.writeFacts(opt)
}

// begun returns whether a folder holds any result of training. If not, for
// example after an error in the first step, its description may be replaced by
// another one.
func begun(dir string) bool {
	for _, pattern := range []string{"fold*.json", filepath.Join(stateDir, "fold*", "*.safetensors*")} {
		if paths, _ := filepath.Glob(filepath.Join(dir, pattern)); len(paths) > 0 {
			return true
		}
	}
	return false
}

func (o *folder) lock(dir string, take func(string) (*folderlock.Lock, error)) error {
	l, err := take(dir)
	if errors.Is(err, folderlock.ErrBusy) {
		return fmt.Errorf("another run is working in %s; wait for it, or choose another folder: %w", dir, err)
	}
	if err != nil {
		return err
	}
	o.locks = append(o.locks, l)
	return nil
}

// begin locks a fold.
func (o *folder) begin(f int) error {
	dir := o.stateDir(f)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := o.lock(dir, folderlock.Exclusive); err != nil {
		return err
	}
	return removeTemporary(dir)
}

// close releases all locks.
func (o *folder) close() {
	for _, l := range o.locks {
		l.Unlock()
	}
	o.locks = nil
}

// removeStates removes the states of a fold that is done.
func (o *folder) removeStates(f int) error {
	for _, path := range []string{o.statePath(f), o.statePath(f) + train.Previous} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeTemporary removes the unfinished files of a killed run.
func removeTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if temporary(e.Name()) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// facts describe how a run was made, besides its description.
type facts struct {
	Started    string `json:"started"`
	Command    string `json:"command"`
	Device     string `json:"device"`
	Threads    int    `json:"threads"`
	DeviceData int64  `json:"device_data"` // Options.DeviceData
	Program    string `json:"program"`
	Go         string `json:"go"`
	Libtorch   string `json:"libtorch"`
}

// writeFacts appends the facts of this run to run.json.
func (o *folder) writeFacts(opt Options) error {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Path + " " + info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				version += " " + s.Value
			}
		}
	}
	now := facts{
		time.Now().Format(time.RFC3339), strings.Join(opt.Command, " "), opt.Device.String(), nn.Threads(), opt.DeviceData,
		version, runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, nn.LibtorchVersion(),
	}
	runs, err := o.facts()
	if err != nil {
		return err
	}
	return o.json(runFile, append(runs, now))
}

// beginning returns how the run in a folder began; the zero facts if there is none.
func beginning(dir string) (facts, error) {
	if dir == "" {
		return facts{}, nil
	}
	runs, err := (&folder{dir: dir}).facts()
	if err != nil || len(runs) == 0 {
		return facts{}, err
	}
	return runs[0], nil
}

func (o *folder) facts() (runs []facts, err error) {
	b, err := os.ReadFile(o.path(runFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &runs)
	}
	return runs, err
}

func (o *folder) json(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(o.path("%s", name), append(b, '\n'))
}
