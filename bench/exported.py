"""Checks exported models with public tools: onnx.checker, ONNX Runtime, OpenVINO.

    python3 bench/exported.py [encoder [folds [size]]]

A model with random weights (by default a resnet34, one fold, 256x256) is exported twice,
with floats and with bytes as input. onnx.checker must find no error, and the
probabilities of both runtimes must differ from libtorch's by at most 1e-5, for two images
at once and one by one.

Needs go, and pip install numpy onnx onnxruntime openvino.
"""
import json, os, subprocess, sys, tempfile
import numpy as np
import onnx, onnxruntime, openvino

here = os.path.dirname(os.path.abspath(__file__))
print("onnx", onnx.__version__, "ONNX Runtime", onnxruntime.__version__, "OpenVINO", openvino.__version__)
with tempfile.TemporaryDirectory() as folder:
    subprocess.run(["go", "build", "-o", folder + "/exported", "./exported"], cwd=here, check=True)
    out = subprocess.run([folder + "/exported", folder, *sys.argv[1:]], check=True, capture_output=True, text=True).stdout
    n, size = json.loads(out)["n"], json.loads(out)["size"]
    images = np.fromfile(folder + "/images.bin", np.uint8).reshape(n, 1, size, size)
    want = np.fromfile(folder + "/probabilities.bin", np.float32).reshape(n, -1, size, size)
    print(f"libtorch: probabilities from {want.min():.4f} to {want.max():.4f}")
    for name, x in (("floats", images.astype(np.float32) / np.float32(255)), ("bytes", images)):
        path = f"{folder}/{name}.onnx"
        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for runtime, run in (("ONNX Runtime", lambda x: session.run(None, {"images": x})[0]),
                             ("OpenVINO", lambda x: compiled({"images": x})[0])):
            for way, got in (("together", run(x)), ("one by one", np.concatenate([run(x[i:i + 1]) for i in range(n)]))):
                worst = np.abs(got - want).max()
                print(f"{name}, {runtime}, {way}: largest difference {worst:.2g}")
                assert got.shape == want.shape and worst <= 1e-5
