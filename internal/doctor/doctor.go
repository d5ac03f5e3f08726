// Package doctor says what an installation is, and what to do about what is wrong
// with it.
package doctor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/hcunet/hcunet/dist"
	"github.com/hcunet/hcunet/internal/onnxruntime"
	"github.com/hcunet/hcunet/nn"
	"golang.org/x/sys/cpu"
)

// State says how a part of the installation is.
type State int

const (
	Good   State = iota
	Advice       // it works; Remedy makes it better
	Wrong        // it does not work; Remedy says what to do
)

var marks = [...]string{Good: "ok", Advice: "advice", Wrong: "WRONG"}

// A Finding is what there is of one part.
type Finding struct {
	Part   string
	State  State
	Is     string
	Remedy string // what to do; "" where it is Good
}

// Examine looks at the program, the machine and the libraries, and computes for
// about a second.
func Examine() []Finding {
	return []Finding{
		library(), native(), processor(), threads(), memory(), gpus(), processes(), onnxRuntime(), selfTest(),
	}
}

// Write writes findings as a screen of text, and reports whether nothing is Wrong.
func Write(w io.Writer, findings []Finding) (well bool, err error) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	well = true
	for _, f := range findings {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Part, marks[f.State], f.Is)
		if f.Remedy != "" {
			fmt.Fprintf(t, "\t\t-> %s\n", f.Remedy)
		}
		well = well && f.State != Wrong
	}
	return well, t.Flush()
}

func library() Finding {
	version := "of this folder"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == "github.com/hcunet/hcunet" && m.Version != "" {
				version = m.Version
			}
		}
	}
	return Finding{Part: "hcunet", Is: fmt.Sprintf("%s, %s, %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)}
}

func native() Finding {
	f := Finding{Part: "libtorch", Is: nn.LibtorchVersion()}
	if path := mapped("libtorch_cpu."); path != "" {
		f.Is += ", " + path
	}
	return f
}

// mapped returns the path of a library in this process whose name begins so; "" where
// the system does not tell.
func mapped(name string) string {
	b, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(b)) {
		if at := strings.IndexByte(line, '/'); at >= 0 && strings.HasPrefix(filepath.Base(line[at:]), name) {
			return strings.TrimSpace(line[at:])
		}
	}
	return ""
}

func processor() Finding {
	f := Finding{Part: "processor", Is: "no vector instructions that are asked for"}
	var has []string
	for _, x := range []struct {
		name string
		has  bool
	}{
		{"AVX2", cpu.X86.HasAVX2}, {"FMA", cpu.X86.HasFMA}, {"AVX-512", cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW},
		{"VNNI", cpu.X86.HasAVX512VNNI}, {"AVX-512 BF16", cpu.X86.HasAVX512BF16}, {"AMX BF16", cpu.X86.HasAMXBF16},
		{"ASIMD", cpu.ARM64.HasASIMD}, {"SVE", cpu.ARM64.HasSVE},
	} {
		if x.has {
			has = append(has, x.name)
		}
	}
	if has != nil {
		f.Is = strings.Join(has, ", ")
	}
	switch {
	case runtime.GOARCH == "amd64" && !cpu.X86.HasAVX2:
		f.State, f.Remedy = Advice, "without AVX2 libtorch computes several times slower; a virtual machine may hide it from its guest: pass the host's processor through"
	case cpu.X86.HasAVX512BF16 || cpu.X86.HasAMXBF16:
		f.Is += "; bfloat16 is computed in hardware"
	case runtime.GOARCH == "amd64" && !cpu.X86.HasAVX512BW:
		f.Is += "; maps in bfloat16 are computed in float32 here, which saves memory and no time"
	}
	return f
}

func threads() Finding {
	n := nn.Threads()
	f := Finding{Part: "threads", Is: fmt.Sprintf("%d for libtorch, %d cores", n, runtime.NumCPU())}
	if blas := nn.BLASThreads(); blas > 0 {
		f.Is += fmt.Sprintf(", %d for OpenBLAS", blas)
	}
	b, _ := os.ReadFile("/sys/fs/cgroup/cpu.max")
	if quota := quota(string(b)); quota > 0 && quota < float64(runtime.NumCPU()) {
		f.Is += fmt.Sprintf(", of which this container may use %.1f", quota)
		if float64(n) > quota+0.5 {
			f.State, f.Remedy = Advice, fmt.Sprintf("threads that wait for their turn hold the others up: OMP_NUM_THREADS=%d", max(int(quota), 1))
		}
	} else if n > runtime.NumCPU() {
		f.State, f.Remedy = Advice, fmt.Sprintf("more threads than cores are slower: OMP_NUM_THREADS=%d", runtime.NumCPU())
	}
	return f
}

// quota returns the cores that a container may use, from the text of cgroup 2's
// cpu.max; 0 where there is no limit.
func quota(text string) float64 {
	f := strings.Fields(text)
	if len(f) != 2 {
		return 0
	}
	used, err1 := strconv.ParseFloat(f[0], 64)
	period, err2 := strconv.ParseFloat(f[1], 64)
	if err1 != nil || err2 != nil || period <= 0 {
		return 0
	}
	return used / period
}

func memory() Finding {
	f := Finding{Part: "memory", Is: "not told by this system"}
	b, _ := os.ReadFile("/proc/meminfo")
	total, free := meminfo(string(b))
	if total == 0 {
		return f
	}
	f.Is = fmt.Sprintf("%.1f GiB, %.1f of them free", total, free)
	if free < 2 {
		f.State, f.Remedy = Advice, "an ensemble of four networks wants 2 GiB: end other programs, or predict with fewer -folds"
	}
	return f
}

// meminfo returns GiB from the text of /proc/meminfo.
func meminfo(text string) (total, free float64) {
	for line := range strings.Lines(text) {
		var kb float64
		if _, err := fmt.Sscanf(line, "MemTotal: %f kB", &kb); err == nil {
			total = kb / (1 << 20)
		}
		if _, err := fmt.Sscanf(line, "MemAvailable: %f kB", &kb); err == nil {
			free = kb / (1 << 20)
		}
	}
	return total, free
}

func gpus() Finding {
	f := Finding{Part: "CUDA"}
	n := 0
	for {
		if _, err := nn.ParseDevice("cuda:" + strconv.Itoa(n)); err != nil {
			break
		}
		n++
	}
	driver, _ := filepath.Glob("/dev/nvidia[0-9]*")
	switch {
	case n > 0:
		f.Is = fmt.Sprintf("devices cuda:0 to cuda:%d", n-1)
		if n == 1 {
			f.Is = "device cuda:0"
		}
		if err := nn.CanRecord(); err != nil {
			f.State, f.Is, f.Remedy = Advice, f.Is+"; training steps are not recorded and take longer", err.Error()
		}
	case len(driver) > 0 && mapped("libtorch_cuda") == "":
		f.State, f.Is = Advice, fmt.Sprintf("%s, but this libtorch is for the CPU alone", strings.Join(driver, ", "))
		f.Remedy = "take a libtorch with CUDA: pip install torch, then LIBTORCH=folder scripts/libtorch -go-env (README, Install)"
	case len(driver) > 0:
		f.State, f.Is = Wrong, fmt.Sprintf("%s, but CUDA does not find a device", strings.Join(driver, ", "))
		f.Remedy = "the driver may be too old for this libtorch: compare nvidia-smi's CUDA version with libtorch's, and see that CUDA_VISIBLE_DEVICES is not empty"
	default:
		f.Is = "no device; the CPU computes"
	}
	return f
}

func processes() Finding {
	const part, remedy = "several processes", "only training on several machines or GPUs needs it"
	switch cpu, cuda := dist.Available(false), dist.Available(true); {
	case cpu != nil:
		return Finding{part, Advice, "not in this build: " + cpu.Error(), remedy}
	case cuda == nil:
		return Finding{Part: part, Is: "in this build, by Gloo and NCCL"}
	case mapped("libtorch_cuda") != "":
		return Finding{part, Advice, "in this build, but not on CUDA: " + cuda.Error(), remedy}
	default:
		return Finding{Part: part, Is: "in this build, by Gloo"}
	}
}

// onnxRuntime looks where package predict/onnx does.
func onnxRuntime() Finding {
	f := Finding{Part: "ONNX Runtime"}
	path, err := onnxruntime.Find()
	version := onnxruntime.Version(path)
	switch {
	case err != nil && os.Getenv(onnxruntime.Variable) != "":
		f.State, f.Is, f.Remedy = Wrong, fmt.Sprintf("not where $%s says", onnxruntime.Variable), onnxruntime.Get
	case err != nil:
		f.Is = "not found; only -engine onnx (package predict/onnx) needs it: pip install onnxruntime"
	case version != 0 && version < onnxruntime.Least:
		f.State, f.Is = Advice, path
		f.Remedy = fmt.Sprintf("too old for package predict/onnx, which wants 1.%d: %s", onnxruntime.Least, onnxruntime.Get)
	default:
		f.Is = path
	}
	return f
}
