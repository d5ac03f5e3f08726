"""A side of bench/speed.py: an ONNX file in ONNX Runtime or OpenVINO.

    bench/speed.py -side "python speed/onnx_side.py notebook openvino" -side "python speed/onnx_side.py hcunet openvino"

"notebook" is the network as network.py writes it, exported by PyTorch; "hcunet" is the
file that predict/onnxfile writes of the same weights (its sigmoids are undone to compare
scores, and stay in what is timed). Needs torch, onnxscript, onnxruntime and openvino.
"""
import json, os, resource, subprocess, sys, tempfile, time
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def export(source, weights, batch, size, path):
    if source == "hcunet":
        subprocess.run(["go", "run", "../onnx", "-weights", weights, str(batch), str(size), path], cwd=HERE, check=True)
        return
    # In a process of its own, so that PyTorch takes no part in memory or threads here.
    subprocess.run([sys.executable, "-c", f"""
import torch, network
net = network.Net().eval()
net.load_state_dict(network.load({weights!r}))
torch.onnx.export(net, (torch.zeros({batch}, 3, {size}, {size}),), {path!r}, input_names=["images"], output_names=["scores"], opset_version=17, dynamo=False)
"""], cwd=HERE, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def compile(runtime, path, precision, threads):
    if runtime == "openvino":
        import openvino
        model = openvino.Core().compile_model(path, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"})
        request = model.create_infer_request()
        return lambda x: request.infer({"images": x})[0]
    if precision != "float32":
        raise ValueError("ONNX Runtime's own provider computes in float32 alone")
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


def images(n, size):
    i = np.arange(n * 3 * size * size)
    return ((i % 251).astype(np.float32) / 125 - 1).reshape(n, 3, size, size)


def main():
    source, runtime, threads, weights = sys.argv[1:]
    models = {}

    def run(precision, batch, size):
        key = precision, batch, size
        if key not in models:
            with tempfile.TemporaryDirectory() as folder:
                export(source, weights, batch, size, folder + "/model.onnx")
                models.clear()
                models[key] = compile(runtime, folder + "/model.onnx", precision, int(threads))
        x = images(batch, size)
        start = time.perf_counter()
        y = models[key](x)
        return y, time.perf_counter() - start

    def answer(do, precision="float32", batch=1, size=64):
        if do == "memory":
            return {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        y, seconds = run(precision, batch, size)
        if do == "forward":
            return {"seconds": seconds}
        if do == "scores":
            y = y.astype(np.float64)
            return {"scores": (np.log(y / (1 - y)) if source == "hcunet" else y).flatten().tolist()}
        return {"error": f"{do} is not known"}

    print(json.dumps({"ready": f"{source}, {runtime}, {threads} threads"}), flush=True)
    for line in sys.stdin:
        try:
            result = answer(**json.loads(line))
        except Exception as e:
            result = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(result), flush=True)


main()
