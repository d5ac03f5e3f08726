"""The notebook's network in plain PyTorch, and the loading and saving of its weights.

The network has a ResNet-34, skips without gradient, pixel-shuffle upsampling with blur,
and hypercolumns, which are concatenated with all channels before the last convolution.
"""
import json, struct
import torch
import torch.nn as nn, torch.nn.functional as F


def conv(i, o, k, relu=True):
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2), *([nn.ReLU(inplace=True)] if relu else []))


class Basic(nn.Module):
    """torchvision's BasicBlock."""

    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.downsample = None if i == o else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(y.add_(x if self.downsample is None else self.downsample(x)), inplace=True)


def resnet34():
    stages = []
    for i, o, n in ((64, 64, 3), (64, 128, 4), (128, 256, 6), (256, 512, 3)):
        stages.append(nn.Sequential(Basic(i, o, 1 if i == o else 2), *(Basic(o, o, 1) for _ in range(n - 1))))
    return nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), *stages)


class Up(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.conv = conv(i, 4 * o, 1, relu=False)

    def forward(self, x):
        x = F.pixel_shuffle(F.relu(self.conv(x), inplace=True), 2)
        return F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2, stride=1)


class Block(nn.Module):
    def __init__(self, below, skip, out):
        super().__init__()
        self.shuf, self.bn = Up(below, below // 2), nn.BatchNorm2d(skip)
        self.conv1, self.conv2 = conv(below // 2 + skip, out, 3), conv(out, out, 3)

    def forward(self, x, skip):
        x = F.relu(torch.cat([self.shuf(x), self.bn(skip)], 1))
        return self.conv2(self.conv1(x))


class Residual(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layers = nn.ModuleList([conv(c, c, 3), conv(c, c, 3)])

    def forward(self, x):
        return x + self.layers[1](self.layers[0](x))


class Columns(nn.Module):
    def __init__(self, widths, c):
        super().__init__()
        pair = lambda w: nn.Sequential(nn.Conv2d(w, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1))
        self.factorization = nn.ModuleList(pair(w) for w in widths)

    def forward(self, maps, x):
        resized = [F.interpolate(f(m), size=x.shape[-2:], mode="bilinear", align_corners=False) for f, m in zip(self.factorization, maps)]
        return torch.cat(resized + [x], 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        blocks = [Block(512, 256, 512), Block(512, 128, 384), Block(384, 64, 256), Block(256, 64, 96)]
        middle = nn.Sequential(conv(512, 1024, 3), conv(1024, 512, 3))
        self.layers = nn.ModuleList([resnet34(), nn.BatchNorm2d(512), nn.ReLU(), middle, *blocks, Up(96, 96), nn.Identity(),
                                     Residual(99), Columns([512, 512, 384, 256, 96], 99), conv(594, 2, 1, relu=False)])

    def forward(self, image):
        x, skips = image, []
        for i, part in enumerate(self.layers[0]):
            x = part(x)
            if i in (2, 4, 5, 6):
                skips.append(x.detach())
        x = self.layers[3](F.relu(self.layers[1](x)))
        maps = [x]
        for block in self.layers[4:8]:
            x = block(x, skips.pop())
            maps.append(x)
        x = self.layers[10](torch.cat([self.layers[8](x), image], 1))
        return self.layers[12](self.layers[11](maps, x))


def save(path, state):
    """Writes a safetensors file: a header of JSON, then the bytes of all tensors."""
    names = {torch.float32: "F32", torch.int64: "I64"}
    header, at = {}, 0
    for k, v in state.items():
        size = v.numel() * v.element_size()
        header[k] = {"dtype": names[v.dtype], "shape": list(v.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for v in state.values():
            f.write(v.contiguous().numpy().tobytes())


def load(path):
    """Reads a file that save or hcunet wrote."""
    types = {"F32": torch.float32, "I64": torch.int64}
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), bytearray(f.read())
    state = {}
    for k, v in header.items():
        if k == "__metadata__":
            continue
        at, end = v["data_offsets"]
        state[k] = torch.frombuffer(data, dtype=types[v["dtype"]], offset=at, count=(end - at) // (4 if v["dtype"] == "F32" else 8)).reshape(v["shape"]).clone()
    return state


def flops(size):
    """Returns the floating-point operations of the convolutions for one image: as written
    here, and with folded hypercolumns, where the second convolution of each pair has 2
    outputs and the last convolution reads only the last map."""
    net, plain, folded = Net().eval(), 0, 0

    def count(name):
        def hook(conv, _, y):
            nonlocal plain, folded
            each = 2 * y.shape[2] * y.shape[3] * conv.kernel_size[0] * conv.kernel_size[1]
            plain += each * conv.in_channels * conv.out_channels
            if name.endswith("1") and "factorization" in name:
                folded += each * conv.in_channels * 2
            elif name.startswith("layers.12"):
                folded += each * 99 * 2
            else:
                folded += each * conv.in_channels * conv.out_channels
        return hook

    for name, m in net.named_modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_hook(count(name))
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size))
    return {"plain": plain, "folded": folded}
