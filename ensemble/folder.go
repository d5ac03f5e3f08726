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
)

// Names in the folder of a run. A fold is done when its part is there, which is
// written last.
const (
	configFile = "config.json"
	runFile    = "run.json"
	stateDir   = "state" // of folds under way
	stateFile  = "state.safetensors"
)

// A folder is that of a run. Files appear in it whole or not at all.
type folder struct {
	dir    string
	locks  []*folderlock.Lock
	digest string // of the description
}

// path returns the path of a file in the folder.
func (o *folder) path(format string, args ...any) string {
	return filepath.Join(o.dir, fmt.Sprintf(format, args...))
}

// stateDir returns the folder of a fold under way.
func (o *folder) stateDir(f int) string {
	return filepath.Join(o.dir, stateDir, fmt.Sprintf("fold%d", f))
}

// checkFolder looks at the output folder before anything is made: it is new or
// empty, or that of a run with the same description which is gone on with.
func checkFolder(dir string, cfg Config, opt Options) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if opt.Resume {
			return fmt.Errorf("no folder %s, so there is nothing to go on with", dir)
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
		if onlyOurs(entries) { // killed before it could say what it is
			return nil
		}
		return fmt.Errorf("the output folder %s is not empty and not that of a run (it holds %s); choose another one", dir, entries[0].Name())
	case err != nil:
		return err
	case !opt.Resume && !opt.Gather && opt.Fold < 0 && begun(dir):
		return fmt.Errorf("the output folder %s holds a run already; go on with it by -resume, or choose another folder", dir)
	}
	if d := was.Differences(cfg); len(d) > 0 && begun(dir) {
		return fmt.Errorf("the run in %s has another %s; go on with its own description, or choose another folder", dir, strings.Join(d, ", "))
	}
	return nil
}

// onlyOurs says whether a folder holds nothing but what a killed run begins with.
func onlyOurs(entries []fs.DirEntry) bool {
	for _, e := range entries {
		if e.Name() != folderlock.File && !temporary(e.Name()) {
			return false
		}
	}
	return true
}

// temporary says whether a name is that of a file which atomicfile had not finished.
func temporary(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp")
}

// openFolder makes the folder or opens that of a run, locks it, and writes what the
// run is.
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
	if opt.Fold >= 0 { // other folds may be trained beside it
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
	// What another version of this program has begun keeps its text: it says the same,
	// by checkFolder, but may lack fields that had not been thought of.
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

// begun says whether a folder holds anything that was learnt: without, another
// description may take its place, as after an error of the first step.
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
		return fmt.Errorf("another run is at work in %s; wait for it, or choose another folder: %w", dir, err)
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

// close gives all locks back.
func (o *folder) close() {
	for _, l := range o.locks {
		l.Unlock()
	}
	o.locks = nil
}

// removeTemporary removes what a killed run had not finished writing.
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

// facts are what is to be known of a run beside its description.
type facts struct {
	Started  string `json:"started"`
	Command  string `json:"command"`
	Device   string `json:"device"`
	Threads  int    `json:"threads"`
	Program  string `json:"program"`
	Go       string `json:"go"`
	Libtorch string `json:"libtorch"`
}

// writeFacts appends to the runs that worked in the folder.
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
		time.Now().Format(time.RFC3339), strings.Join(opt.Command, " "), opt.Device.String(), nn.Threads(),
		version, runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, nn.LibtorchVersion(),
	}
	runs, err := o.facts()
	if err != nil {
		return err
	}
	return o.json(runFile, append(runs, now))
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
