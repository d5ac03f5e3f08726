"""A side of bench/speed.py: PyTorch.

    torch_side.py -save weights.safetensors
    torch_side.py eager|channels-last|compiled|limits cpu|cuda threads weights.safetensors

The second form first prints {"ready": ...}. It answers each line of its input, such as
{"do": "forward", "precision": "float32", "batch": 2, "size": 256}, with {"seconds": ...}
or {"error": ...}. "step" is a training step: forward, loss, backward, Adam and clearing
the gradients. With "times" it is the mean of so many. "scores" answers with the scores of a forward pass, "memory" with the
process's peak memory. bfloat16 means autocast, except in the forward pass of
channels-last and compiled: there the network itself is converted to bfloat16 once, which
is faster.
"""
import json, resource, sys, time
import torch
import torch.nn.functional as F
import network


def images(n, size):
    i = torch.arange(n * 3 * size * size)
    return ((i % 251).float() / 125 - 1).reshape(n, 3, size, size)


class Side:
    def __init__(self, mode, device, weights):
        self.mode, self.device, self.nets = mode, device, {}
        self.net = network.Net().to(device)
        self.net.load_state_dict(network.load(weights))
        if mode != "eager":
            self.net.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-5, betas=(0.9, 0.99), fused=device == "cuda" and mode != "eager")
        self.compiled = torch.compile(self.net, dynamic=False) if mode == "compiled" else self.net

    def autocast(self, precision):
        return torch.autocast(self.device, torch.bfloat16, enabled=precision == "bfloat16")

    def images(self, n, size):
        x = images(n, size).to(self.device)
        return x if self.mode == "eager" else x.contiguous(memory_format=torch.channels_last)

    def inference(self, precision):
        """Returns the network in the form that is fastest for inference."""
        if precision not in self.nets:
            net = network.Net().to(self.device).eval()
            net.load_state_dict(self.net.state_dict())
            if self.mode != "eager":
                net.to(memory_format=torch.channels_last)
                if precision == "bfloat16":
                    net.bfloat16()
            if self.mode == "compiled":
                from torch._inductor import config
                config.freezing = True
                net = torch.compile(net, dynamic=False)
            self.nets[precision] = net
        return self.nets[precision]

    def timed(self, times, f):
        """Returns the mean time of one of several calls of f. What a call returns, a function
        that waits for values, is called after the next one."""
        self.wait()
        start, before = time.perf_counter(), lambda: None
        for _ in range(times):
            take = f()
            before()
            before = take
        before()
        self.wait()
        return (time.perf_counter() - start) / times

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def forward(self, precision, x):
        net = self.inference(precision)
        with torch.no_grad():
            if self.mode == "eager":
                with self.autocast(precision):
                    y = net(x)
            else:
                y = net(x.bfloat16() if precision == "bfloat16" else x)
            return self.read(y.float().contiguous())

    def read(self, y):
        """Returns a function that returns y on the CPU. Eager waits for it at once, as most
        programs do; the other modes go on, so that the GPU need not wait for the copy."""
        if self.device == "cpu" or self.mode == "eager":
            y = y.cpu()
            return lambda: y
        values = torch.empty(y.shape, pin_memory=True).copy_(y, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return lambda: copied.synchronize() or values

    def step(self, precision, x, y):
        self.net.train()
        with self.autocast(precision):
            loss = F.cross_entropy(self.compiled(x), y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return lambda: None

    def answer(self, do, precision="float32", batch=1, size=64, times=1):
        if do in ("scores", "forward", "step"):
            x = self.images(batch, size)
        if do == "scores":
            return {"scores": self.forward(precision, x)().flatten().tolist()}
        if do == "forward":
            return {"seconds": self.timed(times, lambda: self.forward(precision, x))}
        if do == "step":
            y = torch.zeros(batch, size, size, dtype=torch.int64, device=self.device)
            return {"seconds": self.timed(times, lambda: self.step(precision, x, y))}
        if do == "memory":
            return {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        if do == "limits":
            return limits(self)
        if do == "flops":
            return network.flops(size)
        return {"error": f"{do} is not known"}


def least(f, wait, times=5):
    seconds = []
    for _ in range(times + 1):
        wait()
        start = time.perf_counter()
        f()
        wait()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def limits(device):
    """Returns the highest speeds of this machine: of 3x3 convolutions with shapes of the
    network and larger ones, in both memory layouts and, on the CPU, in oneDNN's own layout
    with packed weights; of a matrix product; and of a copy. In float32 on the CPU, in
    bfloat16 on CUDA."""
    best, cpu = 0, device == "cpu"
    n, side, wait, dtype = (2, 2048, lambda: None, torch.float32) if cpu else (16, 8192, torch.cuda.synchronize, torch.bfloat16)
    random = lambda *shape: torch.randn(shape, device=device).to(dtype)
    with torch.no_grad():
        for c, s in ((64, 64), (96, 256), (256, 64), (384, 64), (512, 32)):
            work = 2 * n * c * c * 9 * s * s
            for layout in (torch.contiguous_format, torch.channels_last):
                x, w = (t.contiguous(memory_format=layout) for t in (random(n, c, s, s), random(c, c, 3, 3)))
                best = max(best, work / least(lambda: F.conv2d(x, w, padding=1), wait))
            if cpu:
                x, w = random(n, c, s, s).to_mkldnn(), random(c, c, 3, 3).to_mkldnn()
                w = torch._C._nn.mkldnn_reorder_conv2d_weight(w, (1, 1), (1, 1), (1, 1), 1)
                b = torch.zeros(c).to_mkldnn()
                best = max(best, work / least(lambda: F.conv2d(x, w, b, padding=1), wait))
        a, b = random(side, side), random(side, side)
        product = 2 * side ** 3 / least(lambda: a @ b, wait)
        a, b = (torch.zeros(1 << 26, device=device) for _ in range(2))
        copy = 2 * 4 * (1 << 26) / least(lambda: b.copy_(a), wait)
    return {"convolution, GFLOP/s": best / 1e9, "matrix product, GFLOP/s": product / 1e9, "copy (read and written), GB/s": copy / 1e9}


def main():
    torch.manual_seed(1)
    if sys.argv[1] == "-save":
        network.save(sys.argv[2], network.Net().state_dict())
        return
    mode, device, threads, weights = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.backends.cudnn.benchmark = True
    side = device if mode == "limits" else Side(mode, device, weights)
    print(json.dumps({"ready": f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = Side.answer(side, **request)
        except Exception as e:
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
