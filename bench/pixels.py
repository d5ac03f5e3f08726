#!/usr/bin/env python3
"""Compares packages data/clahe and data/resize with scikit-image and OpenCV.

    /usr/bin/python3 bench/pixels.py      (Debian: python3-skimage, python3-opencv)

Both sides take turns in one run, on one core each. The times are processor time, so that
other work on the machine does not count, in the fastest of three rounds. The outputs are
equal to the last byte; the tests with data/clahe/testdata and data/resize/testdata check
this.
"""
import os, resource, subprocess, tempfile, time
for v in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ[v] = '1'
import cv2, numpy as np, skimage
from skimage import exposure
cv2.setNumThreads(1)

def film(n):
    y, x = np.mgrid[:n, :n]
    i = (np.arange(n * n, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(24)).astype(np.int64).reshape(n, n)
    a = x * 150 // n + y * 70 // n + i // 8
    return np.where((2 * x - n) ** 2 + (2 * y - n) ** 2 < n * n // 2, a // 3, a).astype(np.uint8)

def clahe(n):
    a = film(n)
    return lambda: (exposure.equalize_adapthist(a) * 255).astype(np.uint8)
def resize(n, m, t=np.uint8):
    a = film(n).astype(t)
    return lambda: cv2.resize(a, (m, m))

CASES = [('CLAHE 128x128', clahe(128), './data/clahe', 'Gray/128'), ('CLAHE 256x256', clahe(256), './data/clahe', 'Gray/256'),
         ('CLAHE 512x512', clahe(512), './data/clahe', 'Gray/512'), ('CLAHE 1024x1024', clahe(1024), './data/clahe', 'Gray/1024'),
         ('resize 1024 to 256', resize(1024, 256), './data/resize', 'Linear/1024to256'),
         ('resize 1024 to 512', resize(1024, 512), './data/resize', 'Linear/1024to512'),
         ('resize 1024 to 640', resize(1024, 640), './data/resize', 'Linear/1024to640'),
         ('resize 256 to 1024', resize(256, 1024), './data/resize', 'Linear/256to1024'),
         ('mask 1024 to 256', resize(1024, 256, np.float64), './data/resize', 'Mask1024to256')]

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

def spent(args):
    def children():
        r = resource.getrusage(resource.RUSAGE_CHILDREN)
        return r.ru_utime + r.ru_stime
    before = children()
    subprocess.run(args, cwd=root, capture_output=True, check=True)
    return children() - before
def go(binary, name, n):
    """Returns the ms of one iteration, from runs of n iterations and of one, so that the start does not count."""
    args = [binary, '-test.run', '^$', '-test.cpu', '1', '-test.bench', '^Benchmark' + name.replace('/', '$/^') + '$', '-test.benchtime']
    return (spent(args + [f'{n}x']) - spent(args + ['1x'])) / (n - 1) * 1e3
def python(f, n):
    f()
    start = time.process_time()
    for _ in range(n): f()
    return (time.process_time() - start) / n * 1e3

print(f'scikit-image {skimage.__version__}, OpenCV {cv2.__version__}, {subprocess.check_output(["go", "version"], text=True).split()[2]}; ms of one core')
print(f'{"":20}{"Python":>9}{"Go":>9}{"ratio":>8}')
with tempfile.TemporaryDirectory() as tmp:
    for package in sorted({c[2] for c in CASES}):
        subprocess.run(['go', 'test', '-c', '-o', os.path.join(tmp, os.path.basename(package)), package], cwd=root, check=True)
    for name, f, package, bench in CASES:
        rounds = [(python(f, 50), go(os.path.join(tmp, os.path.basename(package)), bench, 200)) for _ in range(3)]
        p, g = (min(r[i] for r in rounds) for i in (0, 1))
        print(f'{name:20}{p:9.3f}{g:9.3f}{p / g:8.1f}', flush=True)
