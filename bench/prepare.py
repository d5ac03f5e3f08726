#!/usr/bin/python3
"""Compares examples/prepare with the same steps in Python, in films per second.

    bench/prepare.py [-n 90] [-rounds 3] [DICOM-FOLDER RLE-CSV]

The steps are those of the notebook's data-repack: DICOM pixels, cv2.resize, skimage's
equalize_adapthist, conversion to bytes, PNG; for the mask, decoding the runs and resizing
in the same way. Without arguments the films are those of ../shared/data/siim, or phantoms
if there are none, repeated until there are n.

Both sides take turns, on one core each. The times are processor time, so that other work
on the machine does not count, of the fastest round. Go's time contains the start of the
program; Python's does not contain its imports. At the end all pixels of both outputs are
compared, and prepare is timed on one core and on all cores by the clock.

Needs go and the Debian packages python3-pydicom python3-opencv python3-skimage.
"""
import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time

for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[v] = "1"
import cv2
import numpy as np
import pydicom
import skimage
from skimage import exposure

cv2.setNumThreads(1)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def rle2mask(text, width, height):
    """Returns the mask of runs: pairs of gap and length, counted down the columns."""
    mask = np.zeros(width * height, np.uint8)
    if text.strip() != "-1":
        numbers = np.asarray([int(x) for x in text.split()])
        position = 0
        for gap, length in zip(numbers[0::2], numbers[1::2]):
            position += gap
            mask[position:position + length] = 255
            position += length
    return mask.reshape(width, height).T


def python_chain(dicoms, rows, out, size):
    for sub in ("train", "masks"):
        os.makedirs(f"{out}/{sub}")
    n = total = squares = 0
    for path in dicoms:
        name = os.path.basename(path)[:-4]
        film = pydicom.dcmread(path).pixel_array
        x = exposure.equalize_adapthist(cv2.resize(film, (size, size)))
        n, total, squares = n + x.size, total + x.sum(), squares + np.square(x).sum()
        cv2.imwrite(f"{out}/train/{name}.png", (x * 255).clip(0, 255).astype(np.uint8))
        mask = np.zeros(film.shape, np.uint8)
        for text in rows[name]:
            mask |= rle2mask(text, film.shape[1], film.shape[0])
        mask = cv2.resize(mask.astype(np.float64), (size, size))
        cv2.imwrite(f"{out}/masks/{name}.png", np.round(mask).astype(np.uint8))
    mean = total / n
    return mean, np.sqrt(squares / n - mean * mean)


def cpu(who):
    r = resource.getrusage(who)
    return r.ru_utime + r.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="*")
    parser.add_argument("-n", type=int, default=90)
    parser.add_argument("-rounds", type=int, default=3)
    parser.add_argument("-size", type=int, default=256)
    arg = parser.parse_args()

    work = tempfile.mkdtemp(prefix="bench-prepare-")
    try:
        run(arg, work)
    finally:
        shutil.rmtree(work)


def run(arg, work):
    binary = f"{work}/prepare"
    subprocess.run(["go", "build", "-o", binary, "./examples/prepare"], cwd=ROOT, check=True)
    shared = os.path.join(ROOT, "..", "shared", "data", "siim")
    if len(arg.source) == 2:
        folder, table = arg.source
    elif os.path.isdir(shared):
        folder, table = f"{shared}/dicom", f"{shared}/train-rle.csv"
    else:
        subprocess.run(["go", "run", "./examples/phantom", "-n", "16", "-test", "0", "-out", f"{work}/phantom"], cwd=ROOT, check=True)
        folder, table = f"{work}/phantom/dicom-images-train", f"{work}/phantom/train-rle.csv"
    official = {}
    with open(table) as f:
        for row in list(csv.reader(f))[1:]:
            official.setdefault(row[0].strip(), []).append(row[1])

    # Repeat the films under n names.
    films = sorted(f for f in os.listdir(folder) if f.endswith(".dcm"))
    os.makedirs(f"{work}/dicom")
    rows, dicoms = {}, []
    for i in range(arg.n):
        f = films[i % len(films)]
        name = f"{i:05d}"
        shutil.copyfile(f"{folder}/{f}", f"{work}/dicom/{name}.dcm")
        dicoms.append(f"{work}/dicom/{name}.dcm")
        rows[name] = official[f[:-4]]
    with open(f"{work}/rle.csv", "w") as f:
        f.write("ImageId, EncodedPixels\n")
        for name, texts in rows.items():
            f.writelines(f"{name},{t}\n" for t in texts)

    def go(out, workers):
        env = dict(os.environ, GOMAXPROCS=str(workers))
        shutil.rmtree(out, ignore_errors=True)
        before, began = cpu(resource.RUSAGE_CHILDREN), time.time()
        subprocess.run([binary, "-images", f"{work}/dicom", "-rle", f"{work}/rle.csv", "-size", str(arg.size), "-out", out],
                       env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return cpu(resource.RUSAGE_CHILDREN) - before, time.time() - began

    print(f"{arg.n} films to {arg.size}x{arg.size}, one core; Python {sys.version.split()[0]}, pydicom {pydicom.__version__}, "
          f"OpenCV {cv2.__version__}, scikit-image {skimage.__version__}")
    python_times, go_times = [], []
    for _ in range(arg.rounds):
        shutil.rmtree(f"{work}/python", ignore_errors=True)
        before = cpu(resource.RUSAGE_SELF)
        stats = python_chain(dicoms, rows, f"{work}/python", arg.size)
        python_times.append(cpu(resource.RUSAGE_SELF) - before)
        go_times.append(go(f"{work}/go", 1)[0])
    p, g = min(python_times), min(go_times)
    print(f"Python  {1000 * p / arg.n:6.2f} ms a film  {arg.n / p:7.1f} films/s per core")
    print(f"prepare {1000 * g / arg.n:6.2f} ms a film  {arg.n / g:7.1f} films/s per core")

    for name in rows:
        for sub in ("train", "masks"):
            a, b = (cv2.imread(f"{work}/{side}/{sub}/{name}.png", cv2.IMREAD_UNCHANGED) for side in ("python", "go"))
            assert b is not None and a.dtype == b.dtype and np.array_equal(a, b), f"{sub}/{name}.png differs"
    with open(f"{work}/go/statistics.json") as f:
        ours = json.load(f)
    assert abs(ours["mean"] - stats[0]) < 1e-9 and abs(ours["std"] - stats[1]) < 1e-9, (ours, stats)
    print(f"ratio   {p / g:.2f}; all {2 * arg.n} pictures have the same bytes, the statistics agree to 1e-9")

    cores = len(os.sched_getaffinity(0))
    wall_one = min(go(f"{work}/go", 1)[1] for _ in range(arg.rounds))
    wall_all = min(go(f"{work}/go", cores)[1] for _ in range(arg.rounds))
    print(f"scaling {wall_one / wall_all:.2f} times faster on {cores} cores than on one, by the clock ({arg.n / wall_all:.1f} films/s)")


main()
