#!/usr/bin/env python3
"""Measures the time from the start of a program to its first answer, and its memory.

    bench/start.py [-n 5] [-built FOLDER]

The models have random weights, one network and flip averaging: a resnet18 for 64x64 pixels
and a resnet34 for 256x256. The film is a phantom of 1024x1024. "loaded" is the time of
predict -h, which loads the program and libtorch. "first JSON" is the time from the start of
predict until it has written the findings of the film; "film" is the part of it for the film
itself. Then the resident memory of serve is read with the model open, and after a film and
its overlay, each time with the largest value so far. -built names a folder in which the
programs and models are kept, or are found from an earlier run.
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
    """Runs a command and returns the seconds until done() is true, or until the command ends."""
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
    """Returns resident and peak memory of serve in MiB, with the model open and after a film."""
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
