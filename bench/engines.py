#!/usr/bin/env python3
"""Times the notebook's network in PyTorch eager, ONNX Runtime and OpenVINO, in the last two
both as PyTorch exports it and as predict/onnxfile writes it.

    bench/engines.py [-rounds 5] [-batch 2] [-size 256] [-precision bf16]

All sides have the same weights and take turns in one process with two threads, in another
order in each round. Their scores are compared first. hcunet's file contains sigmoids; they
are inverted for the comparison and are part of the time. bf16 is only for OpenVINO and
PyTorch (autocast), on processors that have instructions for it.

Needs go, and in this Python torch, onnxscript, onnxruntime and openvino.
"""
import argparse, os, random, statistics, subprocess, sys, tempfile, time

os.environ["OMP_WAIT_POLICY"], os.environ["OMP_NUM_THREADS"] = "passive", "2"
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE + "/speed")
import numpy as np
import torch, onnxruntime, openvino
import network


def export(folder, batch, size):
    torch.manual_seed(1)
    net = network.Net().eval()
    network.save(folder + "/weights.safetensors", net.state_dict())
    torch.onnx.export(net, (torch.zeros(batch, 3, size, size),), folder + "/notebook.onnx", input_names=["images"], opset_version=17, dynamo=False)
    subprocess.run(["go", "run", "./exported", "-weights", folder + "/weights.safetensors", str(batch), str(size), folder + "/hcunet.onnx"], cwd=HERE, check=True)


def eager(folder, precision):
    torch.set_num_threads(2)
    net = network.Net().eval()
    net.load_state_dict(network.load(folder + "/weights.safetensors"))

    def run(x):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return net(torch.from_numpy(x)).float().numpy()
    return run


def in_openvino(path, precision):
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 2, "INFERENCE_PRECISION_HINT": precision})
    request = model.create_infer_request()
    return lambda x: request.infer({"images": x})[0]


def in_onnxruntime(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as in predict/onnx
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("-rounds", type=int, default=5)
    flags.add_argument("-batch", type=int, default=2)
    flags.add_argument("-size", type=int, default=256)
    flags.add_argument("-precision", default="f32")
    flags.add_argument("-build", help="only export, into this folder")
    flags.add_argument("-built", help="a folder that an earlier run with -build has filled")
    arg = flags.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arg.built or arg.build or temporary
        if not arg.built:
            os.makedirs(folder, exist_ok=True)
            export(folder, arg.batch, arg.size)
        if arg.build:
            return
        notebook, ours = folder + "/notebook.onnx", folder + "/hcunet.onnx"
        sides = {"PyTorch eager": eager(folder, arg.precision),
                 "notebook, OpenVINO": in_openvino(notebook, arg.precision), "hcunet, OpenVINO": in_openvino(ours, arg.precision)}
        if arg.precision == "f32":
            sides |= {"notebook, ONNX Runtime": in_onnxruntime(notebook), "hcunet, ONNX Runtime": in_onnxruntime(ours)}
        i = np.arange(arg.batch * 3 * arg.size * arg.size)
        x = ((i % 251).astype(np.float32) / 125 - 1).reshape(arg.batch, 3, arg.size, arg.size)
        scores = {name: run(x).astype(np.float64) for name, run in sides.items()}
        want = scores["PyTorch eager"]
        times = {name: [] for name in sides}
        for _ in range(arg.rounds):
            for name in random.sample(list(sides), len(sides)):
                start = time.perf_counter()
                sides[name](x)
                times[name].append(time.perf_counter() - start)
        print(f"PyTorch {torch.__version__}, OpenVINO {openvino.__version__}, ONNX Runtime {onnxruntime.__version__}; "
              f"batch {arg.batch} of {arg.size}x{arg.size}, {arg.precision}, {arg.rounds} rounds, load {os.getloadavg()[0]:.1f}")
        print(f"{'':24} {'least':>8} {'median':>8}  {'eager over it':>13}  {'notebook in OpenVINO over it':>28}  largest difference, of {abs(want).max():.3g}")
        for name, t in times.items():
            y = scores[name]
            if name.startswith("hcunet"):
                y = np.log(y / (1 - y))
            ratio = [statistics.median(a / b for a, b in zip(times[peer], t)) for peer in ("PyTorch eager", "notebook, OpenVINO")]
            print(f"{name:24} {min(t):7.3f}s {statistics.median(t):7.3f}s  {ratio[0]:13.2f}  {ratio[1]:28.2f}  {abs(y - want).max():.2g}")


main()
