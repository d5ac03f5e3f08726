"""Times the notebook's network in PyTorch and in hcunet side by side.

    /usr/bin/python3 bench/model.py [rounds [threads [BATCHxSIZE ...]]]

By default 7 rounds with two threads, batches of 2 at 256x256 and of 4 at 128x128.
Both run on the same libtorch, take turns within each round, and
hold the same weights; their scores are compared first. The network here is the
notebook's, written plainly: a ResNet-34 of torchvision, skips without gradient,
pixel-shuffle upsampling with blur, and hypercolumns joined at full width before
the last convolution. A step is forward, loss, backward, Adam and clearing the
gradients. Ratios are PyTorch's time over hcunet's, by the clock and by processor
time; where others use the machine, only the latter means something, and only with
one thread, as several wait for each other by spinning.

Needs Debian's python3-torch and python3-torchvision.
"""
import json, os, statistics, struct, subprocess, sys, tempfile, time
import resource
import torch, torchvision
import torch.nn as nn, torch.nn.functional as F


def conv(i, o, k, relu=True):
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2), *([nn.ReLU(inplace=True)] if relu else []))


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
        encoder = nn.Sequential(*list(torchvision.models.resnet34().children())[:-2])
        blocks = [Block(512, 256, 512), Block(512, 128, 384), Block(384, 64, 256), Block(256, 64, 96)]
        middle = nn.Sequential(conv(512, 1024, 3), conv(1024, 512, 3))
        self.layers = nn.ModuleList([encoder, nn.BatchNorm2d(512), nn.ReLU(), middle, *blocks, Up(96, 96), nn.Identity(),
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
    """Writes safetensors: a header of JSON, then the bytes."""
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


def images(n, size):
    i = torch.arange(n * 3 * size * size)
    return ((i % 251).float() / 125 - 1).reshape(n, 3, size, size)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    sizes = [tuple(map(int, a.split("x"))) for a in sys.argv[3:]] or [(2, 256), (4, 128)]
    here = os.path.dirname(os.path.abspath(__file__))
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    net = Net()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["go", "build", "-o", folder + "/model", "./model"], cwd=here, check=True)
        save(folder + "/weights.safetensors", net.state_dict())
        go = subprocess.Popen([folder + "/model", str(threads), folder + "/weights.safetensors"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        print("hcunet", go.stdout.readline().strip(), "| PyTorch", torch.__version__, "threads", torch.get_num_threads())

        def ask(*request):
            print(*request, file=go.stdin, flush=True)
            return go.stdout.readline().split()

        optimizer = torch.optim.Adam(net.parameters(), lr=1e-5, betas=(0.9, 0.99))

        def forward(n, size):
            x = images(n, size)
            start = time.perf_counter(), time.process_time()
            net.eval()
            with torch.no_grad():
                net(x)
            net.train()
            return time.perf_counter() - start[0], time.process_time() - start[1]

        def step(n, size):
            x, y = images(n, size), torch.zeros(n, size, size, dtype=torch.int64)
            start = time.perf_counter(), time.process_time()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            return time.perf_counter() - start[0], time.process_time() - start[1]

        net.eval()
        with torch.no_grad():
            want = net(images(1, 64)).flatten()
        net.train()
        got = torch.tensor([float(v) for v in ask("scores", 1, 64)])
        print(f"largest score {want.abs().max():.3g}, largest difference {(want - got).abs().max():.2g}")
        assert (want - got).abs().max() < 1e-4 * want.abs().max()

        for name, mine in (("forward", forward), ("step", step)):
            for n, size in sizes:
                mine(n, size), ask(name, n, size)  # warm up
                python, ours = [], []
                for _ in range(rounds):
                    python.append(mine(n, size))
                    ours.append([float(v) for v in ask(name, n, size)])
                for i, clock in enumerate(("clock", "processor")):
                    p, o = [v[i] for v in python], [v[i] for v in ours]
                    ratio = statistics.median(a / b for a, b in zip(p, o))
                    print(f"{name:8} batch {n} of {size}x{size}, {clock:9}: PyTorch {min(p):.3f} s (median {statistics.median(p):.3f}), "
                          f"hcunet {min(o):.3f} s (median {statistics.median(o):.3f}); ratio {ratio:.2f} (of the minima {min(p) / min(o):.2f})", flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"peak memory: PyTorch {peak} MiB, hcunet {ask('memory', 1, 1)[0]} MiB")
        go.stdin.close()
        go.wait()


main()
