#!/usr/bin/env python3
"""From the start of a program to its first answer, and what memory that takes.

    bench/start.py [-n 5] [-built FOLDER]

Models of random weights, a resnet18 of 64x64 and a resnet34 of 256x256, one network and
flip averaging each, and a drawn film of 1024x1024. "Loaded" is predict -h: the program
with libtorch and nothing else. "First JSON" is the time from exec until predict has
written what it found on the film, of which "film" is what it took for the film. serve
then says what memory is held with the model open, and after a film and its overlay, and
the most there was until then. -built keeps what is built in a folder, or finds it there.
"""
import argparse, glob, json, os, statistics, subprocess, tempfile, time, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = [("resnet18", "64"), ("resnet34", "256")]
ENV = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")}
ADDRESS = "127.0.0.1:8093"


def build(folder):
    for program in "predict", "serve", "phantom":
        subprocess.run(["go", "build", "-o", folder + "/" + program, "../examples/" + program], cwd=HERE, check=True)
    for encoder, size in MODELS:
        os.makedirs(f"{folder}/{encoder}")
        subprocess.run(["go", "run", "./exported", f"{folder}/{encoder}", encoder, "1", size], cwd=HERE, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([folder + "/phantom", "-n", "1", "-test", "1", "-out", folder + "/phantoms"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def seconds(command, done):
    """Runs a command and returns the seconds until done says so, or until its end."""
    start, first = time.perf_counter(), None
    process = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if first is None and done():
            first = time.perf_counter() - start
        time.sleep(0.001)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return first or time.perf_counter() - start


def memory(pid):
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return [int(status[k].split()[0]) // 1024 for k in ("VmRSS", "VmHWM")]


def served(folder, model, film):
    """Returns the memory of serve with the model open, and after a film."""
    process = subprocess.Popen([folder + "/serve", "-model", model, "-listen", ADDRESS], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://{ADDRESS}/readyz").read()
                break
            except OSError:
                time.sleep(0.01)
        opened = memory(process.pid)
        for path in "/predict", "/predict/overlay":
            urllib.request.urlopen(f"http://{ADDRESS}{path}", open(film, "rb").read()).read()
        return opened + memory(process.pid)
    finally:
        process.terminate()
        process.wait()


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("-n", type=int, default=5)
    flags.add_argument("-built")
    arg = flags.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arg.built or temporary
        if not os.path.exists(folder + "/phantoms"):
            build(folder)
        film = glob.glob(folder + "/phantoms/**/*.dcm", recursive=True)[0]
        for encoder, _ in MODELS:
            model = f"{folder}/{encoder}/model.safetensors"
            loaded, firsts, films = [], [], []
            for i in range(arg.n):
                with tempfile.TemporaryDirectory() as out:
                    found = out + "/findings/" + os.path.basename(film).replace(".dcm", ".json")
                    loaded.append(seconds([folder + "/predict", "-h"], lambda: False))
                    firsts.append(seconds([folder + "/predict", "-model", model, "-out", out, film], lambda: os.path.exists(found)))
                    films.append(json.load(open(found))["result"]["timings"]["total_ms"] / 1000)
            rss = served(folder, model, film)
            row = ", ".join(f"{name} {min(v):.2f} ({statistics.median(v):.2f})" for name, v in (("loaded", loaded), ("first JSON", firsts), ("film", films)))
            print(f"{encoder}, {os.path.getsize(model) >> 20} MiB: seconds, least (and median) of {arg.n}: {row}; "
                  f"MiB resident: open {rss[0]}, most {rss[1]}; after a film {rss[2]}, most {rss[3]}")


main()
