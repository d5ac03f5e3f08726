#!/usr/bin/env python3
"""Makes cases.json beside it: what OpenCV's cv2.resize gives for many sizes.

    /usr/bin/python3 data/resize/testdata/cases.py     (Debian: python3-opencv 4.6.0, numpy 1.24.2)

The images come from whole-number formulas that resize_test.go repeats. Per case:
SHA-256 of the uint8 image's resized bytes, of the mask's (float64, resized,
rounded half to even as OpenCV's PNG writer does) and of the image's treated as
the mask is, and a few of the bytes.
"""
import hashlib, json, os
import numpy as np, cv2

def image(w, h):
    y, x = np.mgrid[:h, :w].astype(np.int64)
    return ((x * x * 7 + y * y * 13 + x * y * 5 + x * 91) // 3 % 256).astype(np.uint8)

def mask(w, h):
    y, x = np.mgrid[:h, :w].astype(np.int64)
    return np.where((x * x * 3 + y * x + y * 17) // 64 % 3 == 0, 255.0, 0.0)

sizes = []
for s in (1024, 1000): sizes += [(s, s, t, t) for t in (64, 128, 224, 256, 320, 384, 512, 640, 768, 1024)]
sizes += [(256, 256, 1024, 1024), (128, 128, 256, 256), (100, 100, 333, 333), (640, 480, 320, 240), (640, 480, 320, 239),
          (640, 480, 256, 256), (2048, 1500, 1024, 1024), (7, 5, 3, 9), (5, 7, 11, 2), (2, 2, 1, 1), (3, 2, 1, 1), (1, 1, 4, 3),
          (1, 9, 3, 4), (9, 1, 4, 3), (2, 1, 5, 5), (13, 17, 13, 40), (13, 17, 40, 17), (255, 257, 128, 128), (33, 31, 31, 33),
          (512, 512, 171, 171), (999, 777, 123, 456), (4, 4, 2, 4), (1023, 1025, 511, 513)]
cases = []
for w, h, tw, th in sizes:
    o = cv2.resize(image(w, h), (tw, th)).reshape(th, tw)
    def as_mask(a):
        a = cv2.resize(a.astype(np.float64), (tw, th)).reshape(th, tw)
        m = np.clip(np.rint(a), 0, 255).astype(np.uint8)
        assert (cv2.imdecode(cv2.imencode('.png', a)[1], cv2.IMREAD_UNCHANGED) == m).all()
        return hashlib.sha256(m.tobytes()).hexdigest()
    cases.append(dict(from_w=w, from_h=h, w=tw, h=th, image=hashlib.sha256(o.tobytes()).hexdigest(),
        mask=as_mask(mask(w, h)), image_as_mask=as_mask(image(w, h)), some=[int(o.ravel()[i * o.size // 6]) for i in range(6)]))
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'cases.json'), 'w') as f:
    f.write('{"cv2": "%s", "numpy": "%s", "cases": [\n' % (cv2.__version__, np.__version__))
    f.write(',\n'.join(json.dumps(c) for c in cases) + '\n]}\n')
print(len(cases))
