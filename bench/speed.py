#!/usr/bin/env python3
"""Compares the speed of the notebook's network in hcunet and in PyTorch.

    bench/speed.py                                        with this Python's torch
    bench/speed.py -python /usr/bin/python3 -python ~/venv/bin/python
    bench/speed.py -rows forward -precision float32 -rounds 9 -sizes 2x256
    bench/speed.py -device cuda -sizes 16x256,64x256

Each -python names an interpreter with torch. For each of them, the sides are PyTorch
eager, channels-last and compiled, and hcunet on the same libtorch, for which a
libcgotorch.so is built first (in build/bench; it takes minutes). Every side is a process
of its own with the same weights. Their scores are compared first. Then each row is timed:
after a warm-up the sides take turns, in another order in each round. The table has the
least and the median time of each side. It also has the ratio of the side's time to that of
each hcunet in the same round: the median of all rounds, the least and the largest.

The limits of the machine are measured in the same run: the fastest convolution, matrix
product and copy of any of the torches. For float32, hcunet's operations per second are
given as a share of the fastest convolution; a training step counts as the operations of
three forward passes. Peak memory is measured with processes that compute only this row,
twice.

On CUDA each time is the mean of 20, and memory is not measured. -built takes what an
earlier run left in build/bench, for a GPU machine without Go: copy it there.

Rows in bfloat16 also have PyTorch eager in float32. PyTorch's own bfloat16 is left out on a
processor without instructions for it (AVX-512, AMX), unless -slow asks for it: its convolutions
are then loops that are 10 to 100 times slower. hcunet's compute in float32 there and round to
bfloat16.
"""
import argparse, json, os, random, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


class Side:
    """A process that answers each line of JSON with a line of JSON."""

    def __init__(self, name, command):
        self.name, self.command = name, command
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE)
        self.about = self.read()["ready"]

    def read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"ended with status {self.process.wait()}"}

    def ask(self, do, **request):
        try:
            print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
            return self.read()
        except BrokenPipeError:
            return self.read()

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def sides(arg, folder):
    """Returns the commands of hcunet's sides and of the others, by name."""
    weights = folder + "/weights.safetensors"
    program = folder + "/hcunet"
    subprocess.run([arg.python[0], "speed/torch_side.py", "-save", weights], cwd=HERE, check=True)
    ours, peers = [], []
    for python in arg.python:
        version, home, system = subprocess.run(
            [python, "-c", "import torch, os, sys; print(torch.__version__, os.path.dirname(torch.__file__), sys.prefix == '/usr')"],
            check=True, capture_output=True, text=True).stdout.split()
        version = version.split("+")[0]
        build = f"{ROOT}/build/bench/{version}"
        ours.append((f"hcunet, libtorch {version}", [build + "/hcunet", arg.device, str(arg.threads), weights]))
        for mode in arg.modes:
            if mode == "compiled" and version.startswith("1."):
                continue
            peers.append((f"PyTorch {version} {mode}", [python, "speed/torch_side.py", mode, arg.device, str(arg.threads), weights]))
        if arg.built:
            continue
        newest = max(os.path.getmtime(f"{ROOT}/internal/shim/{f}") for f in os.listdir(f"{ROOT}/internal/shim"))
        library = build + "/libcgotorch.so"
        if not os.path.exists(library) or os.path.getmtime(library) < newest:
            env = dict(os.environ) if system == "True" else dict(os.environ, LIBTORCH=home)
            subprocess.run([ROOT + "/scripts/libcgotorch", build], env=env, check=True)
        if len(ours) == 1:
            env = dict(os.environ, CGO_LDFLAGS=f"-O2 -g -L{build}")
            subprocess.run(["go", "build", "-tags", "cgotorch_so", "-o", program, "./speed"], cwd=HERE, env=env, check=True)
        # A program looks for the library in its own folder first.
        subprocess.run(["cp", program, build + "/hcunet"], check=True)
    for command in arg.side:
        peers.append((os.path.basename(command.split()[0]), [*command.split(), arg.device, str(arg.threads), weights]))
    return ours, peers


def compare(all_sides):
    """Ends the run if the scores of a side differ from those of the first by more than rounding."""
    want = None
    for s in all_sides:
        got = s.ask("scores", precision="float32", batch=1, size=64)
        if "error" in got:
            sys.exit(f"{s.name}: {got['error']}")
        if want is None:
            want = got["scores"]
        worst = max(abs(a - b) for a, b in zip(want, got["scores"], strict=True))
        print(f"{s.name:36} {s.about}; scores differ by {worst:.2g} of {max(map(abs, want)):.3g}", flush=True)
        if worst > 1e-4 * max(map(abs, want)):
            sys.exit("that is too much to be rounding")


def limits(pythons, device, threads, sizes):
    """Prints the limits of the machine. Returns the speed of the fastest convolution in
    GFLOP/s, and the operations of a forward pass of one image by its size."""
    best, flops = {}, {}
    for python in pythons:
        s = Side("", [python, "speed/torch_side.py", "limits", device, str(threads), "-"])
        for k, v in s.ask("limits").items():
            best[k] = max(v, best.get(k, 0))
        flops = {size: s.ask("flops", size=size) for _, size in sizes}
        s.stop()
    print("this machine's best, " + ("float32: " if device == "cpu" else "bfloat16: ") + ", ".join(f"{k} {v:.0f}" for k, v in best.items()), flush=True)
    for size, f in flops.items():
        print(f"convolutions of an image of {size}x{size}: {f['plain'] / 1e9:.1f} GFLOP as the notebook has it, {f['folded'] / 1e9:.1f} with the head folded")
    return best["convolution, GFLOP/s"], flops


def entries(precision, ours, peers, arg):
    """Returns what a row compares, hcunet's sides first: names, sides and the precision of each."""
    if precision == "float32":
        return [(s.name, s, precision) for s in ours + peers]
    own = peers if arg.slow or computes_bfloat16(arg.device) else []
    return [(s.name, s, precision) for s in ours + own] + [(s.name + ", float32", s, "float32") for s in peers if s.name.endswith(" eager")]


def computes_bfloat16(device):
    with open("/proc/cpuinfo") as f:
        return device != "cpu" or "avx512bw" in f.read()


def row(what, precision, batch, size, ours, peers, arg, limit):
    title = f"{what} {precision}, batch {batch} of {size}x{size}"
    request = dict(batch=batch, size=size, times=1 if arg.device == "cpu" else 20)
    notes, times = [], {}
    for e in entries(precision, ours, peers, arg):
        name, s, p = e
        answer = s.ask(what, precision=p, **request)  # warms up
        if "error" in answer:
            notes.append(f"  {name}: {answer['error'].strip().splitlines()[-1][:160]}")
            if s.process.poll() is not None:
                s.start()
            continue
        s.ask(what, precision=p, **request)
        times[e] = []
    for _ in range(arg.rounds):
        for e in random.sample(list(times), len(times)):
            times[e].append(e[1].ask(what, precision=e[2], **request)["seconds"])
    print(f"\n{title}, {arg.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    own = [e for e in times if e[1] in ours]
    print(f"  {'':36} {'least':>8} {'median':>8}" + "".join(f"  {'over ' + e[0].split(',')[1].strip():>22}" for e in own))
    for e in times:
        line = f"  {e[0]:36} {min(times[e]):7.4f}s {statistics.median(times[e]):7.4f}s"
        if arg.device != "cpu":
            line += f" {batch / min(times[e]):7.0f} images/s"
        for o in own:
            ratios = [a / b for a, b in zip(times[e], times[o])]
            line += f"  {statistics.median(ratios):7.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)
    if limit and precision == ("float32" if arg.device == "cpu" else "bfloat16"):
        best, flops = limit
        work = flops[size]["folded"] * batch * (3 if what == "step" else 1) / 1e9
        for e in own:
            print(f"  {e[0]}: {work:.0f} GFLOP at {work / min(times[e]):.0f} GFLOP/s, {work / min(times[e]) / best:.0%} of the best convolution")
    print("\n".join(notes), end="\n" if notes else "", flush=True)


def memory(what, precision, batch, size, compared):
    print(f"\npeak resident memory, {what} {precision}, batch {batch} of {size}x{size}")
    for name, s, p in compared:
        fresh = Side(name, s.command)
        for _ in range(2):
            answer = fresh.ask(what, precision=p, batch=batch, size=size)
        if "error" not in answer:
            print(f"  {name:36} {fresh.ask('memory')['mib']:8.0f} MiB", flush=True)
        fresh.stop()


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("-python", action="append", help="an interpreter with torch; may be given several times")
    flags.add_argument("-modes", default="eager,channels-last,compiled", help="modes of PyTorch")
    flags.add_argument("-side", action="append", default=[], help="the command of an additional side, see speed/torch_side.py")
    flags.add_argument("-rows", default="forward,step")
    flags.add_argument("-device", default="cpu", choices=["cpu", "cuda"])
    flags.add_argument("-built", action="store_true", help="build nothing, use what is in build/bench")
    flags.add_argument("-precision", default="float32,bfloat16")
    flags.add_argument("-slow", action="store_true", help="PyTorch's bfloat16 on any processor")
    flags.add_argument("-sizes", default="2x256,4x128", help="BATCHxSIZE,...")
    flags.add_argument("-rounds", type=int, default=7)
    flags.add_argument("-threads", type=int, default=2)
    flags.add_argument("-no-memory", action="store_true")
    flags.add_argument("-no-limits", action="store_true")
    arg = flags.parse_args()
    arg.python = arg.python or [sys.executable]
    arg.modes = arg.modes.split(",") if arg.modes else []
    sizes = [tuple(map(int, s.split("x"))) for s in arg.sizes.split(",")]
    # Waiting sides must not take the cores by spinning.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    os.environ["OMP_NUM_THREADS"] = str(arg.threads)
    with tempfile.TemporaryDirectory() as folder:
        ours, peers = ([Side(name, command) for name, command in group] for group in sides(arg, folder))
        compare(ours + peers)
        limit = None if arg.no_limits else limits(arg.python, arg.device, arg.threads, sizes)
        jobs = [(what, p, batch, size) for what in arg.rows.split(",") for p in arg.precision.split(",") for batch, size in sizes]
        for what, precision, batch, size in jobs:
            row(what, precision, batch, size, ours, peers, arg, limit)
        for s in ours + peers:
            s.stop()
        for what, precision, batch, size in [] if arg.no_memory or arg.device != "cpu" else jobs:
            memory(what, precision, batch, size, entries(precision, ours, peers, arg))


main()
