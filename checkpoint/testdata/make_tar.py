"""Makes the tar files of PyTorch 0.1 beside it, by hand after the layout that
torch.load still reads (torch/serialization.py, legacy_load), and checks that
torch.load finds in them what the tests state:

    python make_tar.py      # tested with torch 1.13.1

As in make.py, element i of a tensor that begins at b is b + i / 4.
"""

import collections
import io
import pickle
import struct
import tarfile

import torch


def ramp(b, n, code="f"):
    return struct.pack(f"<{n}{code}", *((b + i / 4) if code in "fd" else b + i for i in range(n)))


class Tensor(collections.namedtuple("Tensor", "key storage type size stride offset")):
    """Pickled as its key."""


class Parameter01:
    """NEWOBJ without arguments, and the state (data, grad, hooks, requires_grad, volatile)."""

    def __init__(self, data):
        self.data = data


class Parameter:
    """A call with the tensor, and the state (requires_grad, volatile, hooks)."""

    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return (torch.nn.parameter.Parameter, (self.data,), (True, False, collections.OrderedDict()))


class Pickler(pickle._Pickler):
    """Protocol 2 with tensors as persistent ids; python2: byte strings."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, f, python2):
        super().__init__(f, protocol=2)
        self.python2 = python2

    def persistent_id(self, obj):
        return str(obj.key) if isinstance(obj, Tensor) else None

    def save_str(self, obj):
        if not self.python2:
            return pickle._Pickler.save_str(self, obj)
        data = obj.encode("ascii")
        self.write(b"U" + struct.pack("<B", len(data)) + data)
        self.memoize(obj)

    dispatch[str] = save_str

    def save_parameter01(self, obj):
        self.save(torch.nn.parameter.Parameter)
        self.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
        self.memoize(obj)
        self.save((obj.data, None, collections.OrderedDict(), True, False))
        self.write(pickle.BUILD)

    dispatch[Parameter01] = save_parameter01


def archive(path, obj, storages, views, tensors, python2):
    def pickled(*values):
        f = io.BytesIO()
        for v in values:
            Pickler(f, python2).dump(v)
        return f.getvalue()

    members = {}
    members["sys_info"] = pickled(dict(protocol_version=1000, little_endian=True, type_sizes=dict(short=2, int=4, long=8)))
    members["pickle"] = pickled(obj)
    b = pickled(len(tensors))
    for t in tensors:
        b += pickled((t.key, t.storage, t.type))
        n = len(t.size)
        b += struct.pack(f"<q{n}q{n}qq", n, *t.size, *t.stride, t.offset)
    members["tensors"] = b
    b = pickled(len(storages))
    for key, (kind, count, data) in storages.items():
        b += pickled((key, "cpu", kind)) + struct.pack("<q", count) + data
    members["storages"] = b + pickled(views)
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def main():
    HIGH = 94_000_000_000_000  # an address: five bytes and more
    weights = HIGH + 1, torch.FloatStorage, 24, ramp(1, 24)
    moments = HIGH + 2, torch.FloatStorage, 3, ramp(8, 3)
    counts = 7, torch.LongStorage, 2, ramp(40, 2, "q")
    storages = {key: (kind, n, data) for key, kind, n, data in (weights, moments, counts)}
    views = [(HIGH + 3, weights[0], 6, 12)]  # elements 6 to 17 of the weights

    conv = Tensor(100, weights[0], torch.FloatTensor, (4, 6), (6, 1), 0)
    mean = Tensor(101, moments[0], torch.FloatTensor, (3,), (1,), 0)
    turned = Tensor(102, weights[0], torch.FloatTensor, (2, 3), (1, 6), 4)
    window = Tensor(103, HIGH + 3, torch.FloatTensor, (2, 2), (6, 1), 1)
    count = Tensor(104, counts[0], torch.LongTensor, (2,), (1,), 0)

    state = collections.OrderedDict()
    state["conv1.weight"] = Parameter(conv)
    state["bn1.weight"] = Parameter01(mean)
    state["bn1.running_mean"] = mean
    state["tied"] = conv
    state["turned"] = turned
    state["window"] = window
    state["count"] = count

    want = {
        "conv1.weight": [[1 + (6 * r + c) / 4 for c in range(6)] for r in range(4)],
        "bn1.weight": [8, 8.25, 8.5],
        "bn1.running_mean": [8, 8.25, 8.5],
        "turned": [[2, 3.5, 5], [2.25, 3.75, 5.25]],
        "window": [[2.75, 3], [4.25, 4.5]],
        "count": [40, 41],
    }
    want["tied"] = want["conv1.weight"]

    for python2 in True, False:
        path = f"t01_state_python{2 if python2 else 3}.pth"
        archive(path, state, storages, views, [conv, mean, turned, window, count], python2)
        got = torch.load(path)
        assert list(got) == list(state), list(got)
        for k, v in want.items():
            assert got[k].tolist() == v, (k, got[k])
    print("torch", torch.__version__, "reads both")


if __name__ == "__main__":
    main()
