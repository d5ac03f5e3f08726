// Package onnxruntime looks for ONNX Runtime's shared library.
package onnxruntime

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Variable is that of the environment which names the library, or its folder.
const Variable = "ONNXRUNTIME"

// Least is the oldest version that will do, as its second number: 1.24. The library
// keeps older interfaces, so newer ones will do.
const Least = 24

// Get says how to get a library.
const Get = "pip install onnxruntime (or onnxruntime-openvino, onnxruntime-gpu) in an active or the user's Python environment, or unpack a release of https://github.com/microsoft/onnxruntime/releases; or name the library, or its folder, in $" + Variable

// Find returns the path of the library: of the one that the environment names, or else
// of the newest in the first of these places that has one: LD_LIBRARY_PATH, the active
// Python environment, the user's and the system's Python packages, the system's
// libraries.
func Find() (string, error) {
	if named := os.Getenv(Variable); named != "" {
		if info, err := os.Stat(named); err == nil && !info.IsDir() {
			return named, nil
		}
		if path := newest(named, filepath.Join(named, "lib"), filepath.Join(named, "capi")); path != "" {
			return path, nil
		}
		return "", fmt.Errorf("$%s is %s, where there is no %s: %s", Variable, named, pattern(), Get)
	}
	if path := newest(places()...); path != "" {
		return path, nil
	}
	return "", fmt.Errorf("there is no ONNX Runtime here: %s", Get)
}

func places() []string {
	dirs := filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))
	home, _ := os.UserHomeDir()
	for _, python := range []string{os.Getenv("VIRTUAL_ENV"), os.Getenv("CONDA_PREFIX"), filepath.Join(home, ".local"), "/usr/local", "/usr"} {
		if python != "" {
			dirs = append(dirs, filepath.Join(python, "lib/python3*/*-packages/onnxruntime/capi"))
		}
	}
	return append(dirs, "/usr/local/lib", "/usr/lib/*-linux-gnu", "/usr/lib", "/opt/onnxruntime*/lib")
}

func pattern() string {
	if runtime.GOOS == "darwin" {
		return "libonnxruntime.*dylib"
	}
	return "libonnxruntime.so*"
}

// newest returns the library of the highest version in the first folder that has one.
func newest(folders ...string) (path string) {
	for _, dir := range folders {
		if dir == "" {
			continue
		}
		found, _ := filepath.Glob(filepath.Join(dir, pattern()))
		for _, f := range found {
			if path == "" || Version(f) > Version(path) {
				path = f
			}
		}
		if path != "" {
			return path
		}
	}
	return ""
}

// Version returns the second number of a library's version, by the name of its file or
// of what it links to: 24 for libonnxruntime.so.1.24.1; 0 where the name has none.
func Version(path string) int {
	for _, name := range []string{path, resolved(path)} {
		_, version, ok := strings.Cut(filepath.Base(name), "1.")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(version, ".")
		if n, err := strconv.Atoi(number); err == nil {
			return n
		}
	}
	return 0
}

func resolved(path string) string {
	to, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path
	}
	return to
}
