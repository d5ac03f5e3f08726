"""Writes layers.json: outputs and gradients of PyTorch 1.13.1's layers on small inputs.

    /usr/bin/python3 layers.py > layers.json

Inputs and weights are pseudorandom numbers that depend only on a name: 24 bits of a
splitmix64 stream seeded with the FNV-1a hash of the name. The Go test computes the
same numbers (internal/golden, Unit), so the file holds only the results.
All numbers are float64.
"""
import json, sys
import torch, torch.nn as nn, torch.nn.functional as F
from torch.nn.utils import weight_norm, spectral_norm

M = 2**64 - 1


def unit(name, shape):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 & M
    n, out = 1, []
    for d in shape:
        n *= d
    for i in range(n):
        z = h + (i + 1) * 0x9E3779B97F4A7C15 & M
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & M
        z = (z ^ z >> 27) * 0x94D049BB133111EB & M
        z ^= z >> 31
        out.append(((z >> 40) - 2**23) / 2**23)
    return torch.tensor(out, dtype=torch.float64).reshape(shape)


def fill(case, module):
    """Every float of the state becomes unit(case.name); variances are kept positive."""
    module.double()
    with torch.no_grad():
        for k, v in module.state_dict().items():
            if v.dtype.is_floating_point:
                v.copy_(unit(f"{case}.{k}", v.shape))
                if k.endswith("running_var"):
                    v.copy_(v.abs() + 0.5)
    return module


cases = {}


def case(name, shape, f, module=None):
    """Records f(x), the gradient of sum(f(x) * unit(name.out)) in x and in each parameter, and the state after it."""
    x = unit(name + ".x", shape).requires_grad_(True)
    if module is not None:
        fill(name, module)
    y = f(x)
    (y * unit(name + ".out", y.shape)).sum().backward()
    c = {"in": list(shape), "shape": list(y.shape), "out": y.detach().reshape(-1).tolist(), "grad": x.grad.reshape(-1).tolist(), "grads": {}, "state": {}}
    if module is not None:
        for k, p in module.named_parameters():
            c["grads"][k] = p.grad.reshape(-1).tolist()
        for k, b in module.named_buffers():
            c["state"][k] = b.double().reshape(-1).tolist()
    cases[name] = c


class Attention(nn.Module):  # Zhang et al. 2018, softmax over the queries, as fastai 1 orders it
    def __init__(self, c):
        super().__init__()
        self.query, self.key, self.value = (spectral_norm(nn.Conv1d(c, o, 1, bias=False)) for o in (c // 8, c // 8, c))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        n, c, h, w = x.shape
        flat = x.reshape(n, c, h * w)
        weights = torch.softmax(self.query(flat).transpose(1, 2) @ self.key(flat), dim=1)
        return (self.gamma * (self.value(flat) @ weights) + flat).reshape(x.shape)


class Up(nn.Module):
    def __init__(self, i, o, blur):
        super().__init__()
        self.conv, self.blur = nn.Sequential(nn.Conv2d(i, 4 * o, 1)), blur

    def forward(self, x):
        x = F.pixel_shuffle(F.relu(self.conv(x)), 2)
        return F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2, 1) if self.blur else x


conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
case("conv", (1, 2, 5, 4), conv, conv)
conv = nn.Conv2d(2, 3, 1, bias=False)
case("conv_1x1", (2, 2, 3, 2), conv, conv)
conv = weight_norm(nn.Conv2d(2, 3, 3, padding=1))
case("weight_norm", (1, 2, 3, 4), conv, conv)
conv = spectral_norm(nn.Conv2d(2, 3, 3, padding=1))
case("spectral_norm", (1, 2, 3, 4), conv, conv)
conv = spectral_norm(nn.Conv2d(2, 3, 3, padding=1)).eval()
case("spectral_norm_eval", (1, 2, 3, 4), conv, conv)
bn = nn.BatchNorm2d(2, momentum=0.3)
case("batch_norm", (2, 2, 3, 2), bn, bn)
bn = nn.BatchNorm2d(2).eval()
case("batch_norm_eval", (2, 2, 3, 2), bn, bn)
case("max_pool", (1, 1, 5, 6), nn.MaxPool2d(3, 2, 1))
up = Up(3, 2, True)
case("pixel_shuffle", (1, 3, 2, 3), up, up)
up = Up(3, 2, False)
case("pixel_shuffle_noblur", (1, 3, 2, 3), up, up)
att = Attention(8)
case("attention", (1, 8, 2, 3), att, att)
case("sigmoid_range", (1, 1, 2, 3), lambda x: torch.sigmoid(x) * 1.5 - 0.25)
case("bilinear", (1, 1, 3, 2), lambda x: F.interpolate(x, size=(5, 6), mode="bilinear", align_corners=False))
case("nearest", (1, 1, 3, 2), lambda x: F.interpolate(x, size=(5, 6)))

conv = nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2)
case("conv_dilated_grouped", (1, 4, 5, 6), conv, conv)
conv = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
case("conv_transpose", (2, 2, 3, 2), conv, conv)
norm = nn.GroupNorm(2, 4)
case("group_norm", (2, 4, 3, 2), norm, norm)
case("resize", (1, 2, 3, 4), nn.Upsample(scale_factor=2.5, mode="nearest", recompute_scale_factor=True))
case("resize_bilinear", (1, 2, 4, 5), nn.Upsample(scale_factor=0.5, mode="bilinear", recompute_scale_factor=True))
case("global_avg_pool", (2, 2, 3, 4), nn.AdaptiveAvgPool2d(1))
case("global_max_pool", (2, 2, 3, 4), nn.AdaptiveMaxPool2d(1))
case("leaky_relu", (1, 1, 3, 4), nn.LeakyReLU(0.2))
case("gelu", (1, 1, 3, 4), nn.GELU())

print("{" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in cases.items()) + "}")
