"""Makes the PyTorch files beside it. Run it with two PyTorches:

    python make.py t113     # torch 1.13
    python make.py t2       # torch 2.x, tested with 2.15

Each value is fixed by its index, so that the tests can state them: element i of
a tensor that begins at b is b + i / 4.
"""

import collections
import sys

import torch

tag = sys.argv[1]
new = int(torch.__version__.split(".")[0]) >= 2


def ramp(b, *shape, dtype=torch.float32):
    n = 1
    for s in shape:
        n *= s
    return (b + torch.arange(n, dtype=torch.float64) / 4).to(dtype).reshape(shape)


def save(obj, name):
    torch.save(obj, f"{tag}_{name}_zip.pth")
    torch.save(obj, f"{tag}_{name}_legacy.pth", _use_new_zipfile_serialization=False)


# Views: transposed, offset, every second column, repeated, two names for one
# memory, a scalar, nothing.
base = ramp(1, 4, 6)
views = collections.OrderedDict()
views["base"] = base
views["transposed"] = base.t()
views["row"] = base[2]
views["columns"] = base[1:3, ::2]
views["block"] = base[1:4, 2:5]
views["repeated"] = ramp(9, 2, 1).expand(2, 3)
views["tied"] = base
views["flat"] = base.view(-1)
views["scalar"] = torch.tensor(2.5)
views["empty"] = torch.zeros(0, 3)
views["channels_last"] = ramp(0, 1, 2, 2, 3).contiguous(memory_format=torch.channels_last)
save(views, "views")

types = {
    "f64": ramp(-1, 3, dtype=torch.float64),
    "f32": ramp(-1, 3),
    "f16": torch.tensor([1.5, -2.0, 6e-8, 65504.0, float("inf"), 0.0], dtype=torch.float16),
    "bf16": torch.tensor([1.5, -2.0, 3.0], dtype=torch.bfloat16),
    "i64": torch.tensor([-1, 2**40, 7]),
    "i32": torch.tensor([-1, 2**30, 7], dtype=torch.int32),
    "i16": torch.tensor([-1, 300, 7], dtype=torch.int16),
    "i8": torch.tensor([-1, 100, 7], dtype=torch.int8),
    "u8": torch.tensor([255, 100, 7], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "c64": torch.tensor([1 + 2j], dtype=torch.complex64),
}
if new:
    types["u16"] = torch.tensor([65535, 1], dtype=torch.uint16)
    types["u32"] = torch.tensor([2**32 - 1, 1], dtype=torch.uint32)
    types["f8_e4m3"] = torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)
save(types, "types")

# What fastai 1's learn.save leaves, with parameters and an optimizer that has
# taken a step.
torch.manual_seed(1)
net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, bias=False), torch.nn.BatchNorm2d(3))
for i, p in enumerate(net.parameters()):
    p.data = ramp(i, *p.shape)
opt = torch.optim.Adam(net.parameters(), lr=0.001)
net(ramp(0, 1, 2, 5, 5)).sum().backward()
opt.step()
for i, p in enumerate(net.parameters()):
    p.data = ramp(i, *p.shape)
save({"model": net.state_dict(), "opt": opt.state_dict()}, "fastai")

# Parameters as such, nested containers, attributes on a parameter, hostile and
# harmless company.
extra = torch.nn.Parameter(ramp(5, 2))
extra.note = "kept with the parameter"


class Tame:
    def __reduce__(self):
        return (print, ("a pickle has run code",))


save(
    {
        "epoch": 3,
        "history": [0.5, 0.25, None, True],
        "rng": torch.get_rng_state()[:4].clone(),
        "nested": {"weights": [torch.nn.Parameter(ramp(3, 2, 2)), (ramp(4, 1),)], 7: ramp(6, 1)},
        "parameter": extra,
        "company": Tame(),
        "size": torch.Size([3, 4]),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    },
    "company",
)


class Own(torch.nn.Linear):
    """Its source goes into the legacy file."""


save(Own(1, 1), "module")

# The other pickle protocols, and tensors that carry attributes.
carrying = ramp(2, 3)
carrying.note = "kept with the tensor"
for protocol in 2, 3, 4, 5:
    for new_format in True, False:
        torch.save(
            collections.OrderedDict(weight=ramp(1, 2, 2), carrying=carrying, bias=torch.nn.Parameter(ramp(4, 1)), long="x" * 300, raw=b"bytes", numbers={3, 70000, -5, 2**70, 2.5}),
            f"{tag}_protocol{protocol}_{'zip' if new_format else 'legacy'}.pth",
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=new_format,
        )
torch.jit.script(torch.nn.ReLU()).save(f"{tag}_script_zip.pth")
save({"w": torch.sparse_coo_tensor([[0, 2]], [1.0, 2.0], (3,))}, "sparse")
save({"w": torch.tensor([1 + 2j], dtype=torch.complex128)}, "complex128")
save({"w": torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8), "x": ramp(1, 2)}, "quantized")

# PyTorch 0.2 and 0.3 under Python 2: byte strings as names, Parameter called
# with a tensor, a state that is a tuple.
if not new:
    import io
    import pickle
    import struct

    class Old(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)

        def persistent_id(self, obj):
            if isinstance(obj, torch.storage.TypedStorage):
                return ("storage", torch.FloatStorage, str(obj._cdata), "cpu", obj.size(), None)

        def save_str(self, obj):
            data = obj.encode("ascii")
            self.write(b"U" + struct.pack("<B", len(data)) + data)
            self.memoize(obj)

        dispatch[str] = save_str

    class OldTensor:
        def __init__(self, x):
            self.x = x

        def __reduce__(self):
            return (torch._utils._rebuild_tensor, (self.x.storage(), 0, tuple(self.x.shape), self.x.stride()))

    class OldParameter:
        def __init__(self, x):
            self.x = x

        def __reduce__(self):
            return (torch.nn.parameter.Parameter, (OldTensor(self.x),), (True, False, collections.OrderedDict()))

    w, m = ramp(1, 2, 3), ramp(8, 3)
    keep = [w.storage(), m.storage()]
    state = collections.OrderedDict([("conv1.weight", OldParameter(w)), ("bn1.running_mean", OldTensor(m))])
    w.storage = lambda s=keep[0]: s
    m.storage = lambda s=keep[1]: s
    with open(f"{tag}_python2_legacy.pth", "wb") as f:
        pickle.dump(0x1950A86A20F9469CFC6C, f, protocol=2)
        pickle.dump(1001, f, protocol=2)
        pickle.dump(dict(protocol_version=1001, little_endian=True), f, protocol=2)
        Old(f, protocol=2).dump(state)
        pickle.dump([str(s._cdata) for s in keep], f, protocol=2)
        f.flush()
        for s, t in zip(keep, (w, m)):
            f.write(struct.pack("<q", s.size()))
            f.write(t.numpy().tobytes())
