#!/usr/bin/env python3
"""Compares package augment with fastai's own code in the notebook's random transforms of
one 256x256 image and its mask.

    pip download --no-deps fastai==1.0.54 && unzip fastai-1.0.54-*.whl -d fastai
    PYTHONPATH=fastai /usr/bin/python3 bench/augment.py
    (Debian: python3-torch, python3-scipy)

Both take turns in one run, on one core each. The times are processor time of drawing and
applying the transforms, in the fastest of three rounds. Package augment transforms one
channel, as a film has; fastai is timed with the three equal channels that the notebook
gives it, and with one. The tests of package augment check, with transforms that fastai
has drawn, that both compute the same.
"""
import os, resource, subprocess, sys, tempfile, time
os.environ['OMP_NUM_THREADS'] = '1'
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(root, 'augment', 'testdata'))
import cases, torch
torch.set_num_threads(1)

def fastai(channels, n=200):
    x, y = cases.image(256, 256).expand(channels, -1, -1).contiguous(), cases.mask(256, 256)
    start = time.process_time()
    for _ in range(n):
        tfms = cases.drawn()
        cases.I.Image(x).apply_tfms(tfms, do_resolve=False, size=256).data
        cases.I.ImageSegment(y).apply_tfms(tfms, do_resolve=False, size=256).data
    return (time.process_time() - start) / n * 1e3

def spent(args):
    def children():
        r = resource.getrusage(resource.RUSAGE_CHILDREN)
        return r.ru_utime + r.ru_stime
    before = children()
    subprocess.run(args, cwd=root, capture_output=True, check=True)
    return children() - before
def ours(binary, n=500):
    args = [binary, '-test.run', '^$', '-test.cpu', '1', '-test.bench', '^BenchmarkFull256$/^draws$', '-test.benchtime']
    return (spent(args + [f'{n}x']) - spent(args + ['1x'])) / (n - 1) * 1e3

with tempfile.TemporaryDirectory() as tmp:
    binary = os.path.join(tmp, 'augment.test')
    subprocess.run(['go', 'test', '-c', '-o', binary, './augment'], cwd=root, check=True)
    fastai(1, 5)
    three, one, go = (min(r) for r in zip(*((fastai(3), fastai(1), ours(binary)) for _ in range(3))))
print(f'fastai 1.0.54, torch {torch.__version__}; ms of one core for one image and mask')
print(f'fastai, 3 channels {three:7.2f}\nfastai, 1 channel  {one:7.2f}\nGo, 1 channel      {go:7.2f}\nratio {three / go:.1f}, with 1 channel {one / go:.1f}')
