#!/usr/bin/env python3
"""Does PyTorch read what we write, and do we read what PyTorch writes?

    python3 scripts/checkpoint/check.py [FILE.pth ...]

Needs torch; Debian's python3-torch will do, and torchvision and safetensors are
used where they can be imported. State dicts are saved by torch in both of its
formats, and by hand in the tar format of PyTorch 0.1, converted by our reader and writer (go run ./scripts/checkpoint), and
read back: by the safetensors package, or else by the twenty lines of numpy
below. Every tensor must come back with its name, place, type, shape and bits.
With files as arguments (torchvision's, fastai's) the same is done with those.
"""
import collections, json, os, struct, subprocess, sys, tempfile
import numpy as np
import torch

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "checkpoint", "testdata"))
import make_tar

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
         "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "C64": torch.complex64}


def by_hand(path):
    """safetensors with nothing but numpy and torch.frombuffer."""
    with open(path, "rb") as f:
        b = f.read()
    n = struct.unpack("<Q", b[:8])[0]
    assert n % 8 == 0, "the data does not begin at a multiple of 8"
    header = json.loads(b[8:8 + n])
    out = collections.OrderedDict()
    for name, t in header.items():
        if name == "__metadata__":
            continue
        lo, hi = t["data_offsets"]
        dtype = TYPES[t["dtype"]]
        raw = np.frombuffer(b[8 + n + lo:8 + n + hi], np.uint8).copy()
        out[name] = torch.from_numpy(raw).view(dtype).reshape(t["shape"]) if len(raw) else torch.empty(t["shape"], dtype=dtype)
    return out


READERS = [("by hand", by_hand)]
try:
    from safetensors.torch import load_file
    READERS.append(("safetensors", load_file))
except ImportError:
    print("safetensors is not installed: reading by hand only")


def bits(t):
    t = t.detach().cpu().contiguous()
    return t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""


def check(what, path, state, subtree=()):
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "x.safetensors")
        subprocess.run([TOOL, path, out, *subtree], check=True)
        for how, load in READERS:
            got = load(out)
            assert set(got) == set(state), (what, how, set(got) ^ set(state))
            if load is by_hand:
                assert list(got) == list(state), (what, "order")
            for k, v in state.items():
                assert got[k].dtype == v.dtype and got[k].shape == v.shape and bits(got[k]) == bits(v), (what, how, k)
    elements = sum(v.numel() for v in state.values())
    print(f"{what}: {len(state)} tensors, {elements} elements, every bit equal")


def save_tar(state, path):
    """state in the tar format, a storage a tensor; torch.load must read it back."""
    tensors, storages, pickled = [], {}, collections.OrderedDict()
    for i, (name, t) in enumerate(state.items()):
        t = t.contiguous()
        kind = getattr(torch, t.storage().pickle_storage_type())
        storages[2 * i] = (kind, t.numel(), bits(t))
        x = make_tar.Tensor(2 * i + 1, 2 * i, torch.FloatTensor, tuple(t.shape), t.stride(), 0)
        tensors.append(x)
        pickled[name] = make_tar.Parameter(x) if t.is_floating_point() else x
    make_tar.archive(path, pickled, storages, [], tensors, False)
    for name, t in torch.load(path).items():
        assert t.dtype == state[name].dtype and t.shape == state[name].shape and bits(t) == bits(state[name]), name


def networks():
    try:
        import torchvision
        yield "torchvision's resnet34", torchvision.models.resnet34().state_dict()
        yield "torchvision's resnet18", torchvision.models.resnet18().state_dict()
    except Exception as e:  # absent, or not of this torch
        print("torchvision is not used:", type(e).__name__)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(5, 7))
    yield "a small network", net.state_dict()
    every = collections.OrderedDict((str(d), torch.arange(-2, 6).to(d) if d != torch.bool else torch.arange(3) > 1) for d in TYPES.values())
    every["transposed"] = torch.arange(12.0).reshape(3, 4).t()
    every["scalar"] = torch.tensor(2.5)
    every["empty"] = torch.empty(0, 4)
    yield "every type", every


def main():
    for what, state in networks():
        for new in (True, False):
            with tempfile.TemporaryDirectory() as tmp:
                path = os.path.join(tmp, "x.pth")
                form = "zip" if new else "legacy"
                torch.save(state, path, _use_new_zipfile_serialization=new)
                check(f"{what}, {form}", path, state)
                torch.save({"model": state, "opt": {"state": {}, "param_groups": []}}, path, _use_new_zipfile_serialization=new)
                check(f"{what}, {form}, as fastai saves", path, state, ("model",))
        with tempfile.TemporaryDirectory() as tmp:
            path = os.path.join(tmp, "x.pth")
            save_tar(state, path)
            check(f"{what}, tar", path, state)
    for path in sys.argv[1:]:
        state = torch.load(path, map_location="cpu")
        for key in ("model", "state_dict"):
            state = state.get(key, state)
        check(path, path, state)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as tmp:
        TOOL = os.path.join(tmp, "checkpoint")
        subprocess.run(["go", "build", "-o", TOOL, "./scripts/checkpoint"], cwd=ROOT, check=True)
        main()
