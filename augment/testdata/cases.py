#!/usr/bin/env python3
"""Makes cases.json beside it: what fastai 1.0.54 itself makes of drawn transforms.

    pip download --no-deps fastai==1.0.54 && unzip fastai-1.0.54-*.whl -d fastai
    PYTHONPATH=fastai /usr/bin/python3 augment/testdata/cases.py [n big.json]
    (Debian: python3-torch 1.13.1, numpy 1.24.2, python3-scipy)

Image and mask come from whole-number formulas that cases_test.go repeats. Where
2019's torch behaved otherwise, it is put back: align_corners, torch.gesv and the
type of a tensor of numpy numbers. What fastai imports but does not need here is
replaced by a mock. With arguments: n draws at larger sizes, to the named file.
"""
import collections, collections.abc, importlib.abc, importlib.machinery, json, os, random, sys
from unittest import mock
import numpy as np, torch, torch.nn.functional as F, PIL.Image, PIL.ImageDraw, PIL.ImageFont

class Mocks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    names = ('pkg_resources', 'spacy', 'fastprogress', 'bottleneck', 'torchvision', 'pandas', 'matplotlib', 'requests', 'yaml',
             'numexpr', 'bs4', 'nvidia_smi', 'pynvml', 'dataclasses_json', 'packaging', 'typing_extensions')
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in self.names: return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        m = mock.MagicMock(name=spec.name); m.__path__ = []; m.__spec__ = spec; m.__all__ = []
        return m
    def exec_module(self, module): pass
sys.meta_path.insert(0, Mocks())
for n in ('Iterable', 'Mapping', 'Sequence', 'MutableMapping', 'Callable', 'Sized', 'Iterator', 'Collection'):
    if not hasattr(collections, n): setattr(collections, n, getattr(collections.abc, n))
for n, t in (('object', object), ('float', float), ('int', int), ('bool', bool), ('str', str)):
    if n not in np.__dict__: setattr(np, n, t)
torch.gesv = torch.solve = lambda b, a: (torch.linalg.solve(a, b), None)
sample = F.grid_sample
F.grid_sample = lambda x, grid, mode='bilinear', padding_mode='zeros': sample(x, grid, mode=mode, padding_mode=padding_mode, align_corners=True)
import fastai.vision.image as I
import fastai.vision.transform as T
tensor = I.tensor
I.tensor = lambda x, *rest: tensor(x, *rest).float()

def image(h, w):
    y, x = np.mgrid[:h, :w].astype(np.int64)
    return torch.from_numpy(((x * x * 3 + y * y * 5 + x * y * 7 + x * 11) // 4 % 256).astype(np.uint8)[None]).float().div_(255)
def mask(h, w):
    y, x = np.mgrid[:h, :w].astype(np.int64)
    return torch.from_numpy((((2 * x - w) ** 2 + (3 * y - h) ** 2 < h * w) | ((x * 5 + y * 3) % 11 < 3)).astype(np.uint8) * np.uint8(255))[None].float().div_(255)

def drawn():
    tfms, _ = T.get_transforms()
    I._resolve_tfms(tfms)
    return tfms

def fixed(*tfms):
    tfms = [t(is_random=False, **kw) for t, kw in tfms]
    I._resolve_tfms(tfms)
    return tfms

def case(tfms, h, w, size, digits):
    params = dict(Zoom=0, Degrees=0, Brightness=0, Contrast=0, Flip=False, Warp=[0, 0, 0, 0], ZoomRow=0, ZoomCol=0, CropRow=0.5, CropCol=0.5)
    for t in tfms:
        r, name = t.resolved, t.tfm.func.__name__
        if not t.do_run: continue
        if name == 'crop_pad': params.update(CropRow=r['row_pct'], CropCol=r['col_pct'])
        if name == 'flip_lr': params.update(Flip=True)
        if name == 'symmetric_warp': params.update(Warp=[float(v) for v in r['magnitude']])
        if name == 'rotate': params.update(Degrees=r['degrees'])
        if name == 'zoom': params.update(Zoom=r['scale'], ZoomRow=r['row_pct'], ZoomCol=r['col_pct'])
        if name == 'brightness': params.update(Brightness=r['change'])
        if name == 'contrast': params.update(Contrast=r['scale'])
    x = I.Image(image(h, w)).apply_tfms(tfms, do_resolve=False, size=size or None).data
    y = I.ImageSegment(mask(h, w)).apply_tfms(tfms, do_resolve=False, size=size or None).px
    return dict(h=h, w=w, size=size, params=params, image=[round(float(v), digits) for v in x.flatten()],
                mask=''.join('#' if v == 1 else '.' for v in y.flatten()))

def main():
    random.seed(2019); torch.manual_seed(2019); np.random.seed(2019)
    here = os.path.dirname(os.path.abspath(__file__))
    if len(sys.argv) > 2:
        sizes = [(256, 256, 0), (256, 256, 256), (128, 192, 128), (300, 200, 64), (512, 512, 128), (97, 131, 100), (64, 64, 224), (1024, 1024, 256)]
        cases, out = [case(drawn(), *sizes[i % len(sizes)], 9) for i in range(int(sys.argv[1]))], sys.argv[2]
    else:
        sizes = [(12, 17, 0), (16, 16, 16), (13, 12, 9), (9, 14, 15), (50, 41, 8)]
        cases, out = [case(drawn(), *sizes[i % len(sizes)], 7) for i in range(40)], os.path.join(here, 'cases.json')
        flip, crop = (T.flip_lr, {}), lambda r, c: (T.crop_pad, dict(row_pct=r, col_pct=c))
        zoom = lambda s: (T.zoom, dict(scale=s, row_pct=.3, col_pct=.6))
        cases += [case(fixed(*t), *size, 7) for t, size in (
            ([], (50, 50, 20)), ([flip], (50, 55, 20)),                 # averaged: 2.5 times too large
            ([zoom(1.3)], (60, 60, 20)), ([zoom(1.7)], (60, 60, 20)),   # averaged, and not: zoomed in upon
            ([], (17, 17, 33)), ([flip], (17, 17, 33)),                 # mask pixels exactly halfway
            ([crop(1., 1.), flip], (20, 33, 11)), ([crop(1., 0.)], (33, 20, 11)), ([flip], (12, 17, 0)))]
    with open(out, 'w') as f:
        f.write('{"fastai": "1.0.54", "torch": "%s", "cases": [\n' % torch.__version__)
        f.write(',\n'.join(json.dumps(c, separators=(',', ':')) for c in cases) + '\n]}\n')

if __name__ == '__main__': main()
