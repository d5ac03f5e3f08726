package films

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hcunet/hcunet/data"
)

// Find returns the paths of the films that args name, sorted and without repetitions. An
// argument is a file, a folder, in which DICOM, PNG and JPEG files are searched at any
// depth, or a pattern for filepath.Glob. An argument for which there is no film is an
// error.
func Find(args []string) ([]string, error) {
	var all []string
	for _, arg := range args {
		found, err := under(arg)
		if errors.Is(err, fs.ErrNotExist) {
			matches, bad := filepath.Glob(arg)
			if bad != nil {
				return nil, fmt.Errorf("films: %s: %w", arg, bad)
			}
			if len(matches) == 0 && strings.HasPrefix(arg, "-") {
				return nil, fmt.Errorf("films: there is no film %s; flags come before films", arg)
			}
			if len(matches) == 0 {
				return nil, fmt.Errorf("films: there is no %s, and nothing matches it as a pattern", arg)
			}
			found, err = nil, nil
			for _, m := range matches {
				some, bad := under(m)
				found, err = append(found, some...), errors.Join(err, bad)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("films: %w", err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("films: there is no DICOM, PNG or JPEG file in %s", arg)
		}
		all = append(all, found...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// under returns the films in a folder, or path itself if it is a file.
func under(path string) (found []string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{filepath.Clean(path)}, nil
	}
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		kind, err := data.KindOf(p)
		if kind != data.NoFilm {
			found = append(found, filepath.Clean(p))
		}
		return err
	})
	return found, err
}
