#!/usr/bin/env python3
"""Makes cases.json beside it: what scikit-image computes for images of many sizes.

    /usr/bin/python3 data/clahe/testdata/cases.py     (Debian: python3-skimage 0.19.3, numpy 1.24.2)

The images come from whole-number formulas that clahe_test.go repeats. Per case:
SHA-256 of the float64 output (little-endian, row-major) and of its bytes
(x*255 truncated), and a few of the outputs for a person to look at.
"""
import hashlib, json, os
import numpy as np, skimage
from skimage import exposure

def noise(h, w):
    i = np.arange(h * w, dtype=np.uint32) + np.uint32(1)
    i = i * np.uint32(2654435761); i ^= i >> np.uint32(15)
    i = i * np.uint32(2246822519); i ^= i >> np.uint32(13)
    return (i & np.uint32(255)).astype(np.int64).reshape(h, w)

def image(kind, h, w):
    y, x = np.mgrid[:h, :w].astype(np.int64)
    if kind == 'noise': a = noise(h, w)
    if kind == 'film':
        a = x * 150 // w + y * 70 // h + noise(h, w) // 8
        a = np.where(((2 * x - w) * h) ** 2 + ((2 * y - h) * w) ** 2 < (h * w) ** 2 // 2, a // 3, a)
    if kind == 'spot': a = np.full((h, w), 77); a[h // 3, w // 2] = 78
    if kind.startswith('flat'): a = np.full((h, w), int(kind[4:]))
    return a.astype(np.uint8)

cases = []
def add(kind, h, w, **kw):
    o = exposure.equalize_adapthist(image(kind, h, w), **kw).astype('<f8')
    k = kw.get('kernel_size', (0, 0)); k = (k, k) if isinstance(k, int) else k
    flat = o.ravel()
    cases.append(dict(kind=kind, rows=h, cols=w, kernel=list(k), clip=kw.get('clip_limit', 0), bins=kw.get('nbins', 0),
        float64=hashlib.sha256(o.tobytes()).hexdigest(),
        bytes=hashlib.sha256((o * 255).clip(0, 255).astype(np.uint8).tobytes()).hexdigest(),
        mean=float(o.mean()), some=[float(flat[i * len(flat) // 5]) for i in range(5)]))

for h, w in [(128, 128), (256, 256), (512, 512), (200, 300), (127, 129), (97, 61), (33, 250), (250, 33), (100, 99),
             (64, 9), (9, 64), (17, 17), (16, 23), (15, 8), (8, 8), (7, 5), (3, 2), (2, 1), (1, 1), (1, 40), (40, 1), (321, 77)]:
    for kind in ('film', 'noise'): add(kind, h, w)
add('film', 1024, 1024); add('film', 1000, 777)
for h, w in [(64, 64), (31, 50), (5, 3), (1, 1)]:
    for kind in ('spot', 'flat0', 'flat1', 'flat77', 'flat255'): add(kind, h, w)
for h, w in [(128, 96), (61, 50)]:
    add('film', h, w, kernel_size=32); add('film', h, w, kernel_size=(7, 20)); add('film', h, w, kernel_size=(200, 3))
    add('film', h, w, clip_limit=0.03); add('film', h, w, clip_limit=0.3); add('film', h, w, clip_limit=1.0)
    for n in (1, 2, 16, 64, 100, 255, 1000, 16384): add('film', h, w, nbins=n)
    add('noise', h, w, nbins=64, clip_limit=0.02, kernel_size=(11, 13))
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'cases.json'), 'w') as f:
    f.write('{"skimage": "%s", "numpy": "%s", "cases": [\n' % (skimage.__version__, np.__version__))
    f.write(',\n'.join(json.dumps(c) for c in cases) + '\n]}\n')
print(len(cases))
