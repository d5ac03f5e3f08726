"""golden.py makes testdata/golden.json. Run: python3 golden.py > golden.json

Python 3, numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1, medpy 0.5.2.
"""
import json
import numpy as np
from medpy.metric.binary import assd, hd95
from sklearn.metrics import average_precision_score, precision_recall_curve

rng = np.random.default_rng(20)


def text(m):
    return ["".join(".#"[v] for v in row) for row in m]


def draw(s):
    return np.array([[c == "#" for c in row] for row in s.split()], int)


def blob(h, w, n):
    m = np.zeros((h, w), int)
    for _ in range(n):
        y, x = rng.integers(0, h), rng.integers(0, w)
        b, a = rng.integers(1, 5), rng.integers(1, 7)
        yy, xx = np.mgrid[:h, :w]
        m |= ((yy - y) / b) ** 2 + ((xx - x) / a) ** 2 <= 1
    return m


empty = np.zeros((4, 6), int)
one, other = empty.copy(), empty.copy()
one[0, 1] = 1
other[3, 5] = 1
ring = draw(".#####. .#...#. .#...#. .##.##. .......")
ell = draw("....... .#..... .#..... .####.. .......")
named = [
    ("two pixels", one, other, (1, 1)),
    ("two pixels, anisotropic", one, other, (0.5, 2)),
    ("same", ell, ell, (1, 1)),
    ("ring and L", ring, ell, (0.143, 0.143)),
    ("ring and L, anisotropic", ring, ell, (3, 0.7)),
    ("touches the border", np.ones((5, 7), int), ell, (1, 1)),
    ("full and full", np.ones((5, 7), int), np.ones((5, 7), int), (1, 1)),
    ("nothing predicted", empty, one, (1, 1)),
    ("nothing there", one, empty, (1, 1)),
    ("both empty", empty, empty, (1, 1)),
]
for i in range(8):
    h, w = int(rng.integers(8, 20)), int(rng.integers(8, 24))
    s = tuple(float(v) for v in np.round(rng.uniform(0.1, 3, 2), 3))
    named.append((f"blobs {i}", blob(h, w, 3), blob(h, w, 3), s))

distances = []
for name, a, b, spacing in named:
    try:
        values = [float(hd95(a, b, voxelspacing=spacing)), float(assd(a, b, voxelspacing=spacing))]
    except RuntimeError:  # a mask is empty
        values = None
    distances.append(dict(name=name, predicted=text(a), target=text(b), y=spacing[0], x=spacing[1], values=values))

curves = []
for n, share, steps in [(12, 0.5, 8), (40, 0.2, 64), (60, 0.3, 4096), (60, 0.05, 4096), (30, 1.0, 16)]:
    y = (rng.random(n) < share).astype(int)
    y[0] = 1
    p = np.clip(rng.normal(0.35 + 0.3 * y, 0.2), 0, 1)
    p[1], p[2] = 0, 1
    q = np.floor(p * steps) / steps  # exact in float32
    precision, recall, thresholds = precision_recall_curve(y, q)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = dice[:-1].max()
    curves.append(dict(
        target=y.tolist(), steps=[int(v * 4096) for v in q],
        average_precision=float(average_precision_score(y, q)),
        best_dice=float(best), best_threshold=float(thresholds[np.isclose(dice[:-1], best, rtol=1e-12, atol=0)].max())))

print("{")
for key, rows, end in (("distances", distances, ","), ("curves", curves, "")):
    print(f'"{key}": [')
    print(",\n".join(json.dumps(r) for r in rows))
    print("]" + end)
print("}")
