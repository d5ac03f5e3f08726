#!/usr/bin/env python3
"""Times the prediction of single films, from the DICOM file to the mask, by hcunet's engines
and by Python.

    bench/films.py [-n 30] [-onnxruntime FOLDER] [-openvino FOLDER] [FOLDER of DICOM films]

Each side is a process of its own with two threads. It opens one model, a resnet34 with
random weights and flip averaging, and then predicts one film after another, in turns with
the other sides: DICOM to 256x256 with CLAHE, the probabilities, and the mask at the film's
own size. The Python side uses pydicom, OpenCV, scikit-image's CLAHE as in the notebook, and
the notebook's network in PyTorch eager, with film and mirror image in one batch.

-onnxruntime and -openvino name the folders of the libraries, such as
.../site-packages/onnxruntime/capi of pip install onnxruntime or onnxruntime-openvino; an
engine whose folder is not given is left out. Without a folder of films, phantoms are drawn.

Needs go, and in this Python torch, pydicom, opencv and scikit-image.
"""
import argparse, glob, json, os, random, resource, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
THREADS = "2"


class Side:
    def __init__(self, name, command, env=None):
        self.name = name
        env = dict(os.environ, OMP_NUM_THREADS=THREADS, OMP_WAIT_POLICY="passive", **(env or {}))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.opened = self.read()["opened"]
        self.times = []

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        return self.read()


def python_side(model):
    start = time.perf_counter()
    sys.path.insert(0, HERE + "/speed")
    import cv2, numpy as np, pydicom, torch
    from skimage import exposure
    import network
    torch.set_num_threads(int(THREADS))
    cv2.setNumThreads(int(THREADS))
    net = network.Net().eval()
    net.load_state_dict({k.removeprefix("fold0."): v for k, v in network.load(model).items()})
    print(json.dumps({"opened": time.perf_counter() - start}), flush=True)

    def predict(path):
        film = pydicom.dcmread(path).pixel_array
        x = exposure.equalize_adapthist(cv2.resize(film, (256, 256)))
        x = torch.from_numpy((x * 255).astype(np.uint8)).float() / 255
        x = ((x - 0.54) / 0.264).expand(1, 3, 256, 256)
        with torch.no_grad():
            p = torch.softmax(net(torch.cat([x, x.flip(3)])), 1)
        p = ((p[0] + p[1].flip(2)) / 2)[1].numpy()
        mask = cv2.resize((p > 0.5).astype(np.uint8), film.shape[::-1], interpolation=cv2.INTER_NEAREST)
        return {"pixels": int(mask.sum()), "highest": float(p.max())}

    for line in sys.stdin:
        if line.strip() == "memory":
            answer = {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        else:
            start = time.perf_counter()
            answer = predict(line.strip())
            answer["seconds"] = time.perf_counter() - start
        print(json.dumps(answer), flush=True)


def prepare(folder, films):
    """Builds the programs, the model and, without films, the phantoms."""
    subprocess.run(["go", "build", "-o", folder + "/films", "./films"], cwd=HERE, check=True)
    subprocess.run(["go", "build", "-tags", "nolibtorch", "-o", folder + "/films-onnx", "./films"], cwd=HERE, check=True)
    subprocess.run(["go", "run", "./exported", folder, "resnet34", "1", "256"], cwd=HERE, check=True, stdout=subprocess.DEVNULL)
    if not films:
        subprocess.run(["go", "run", "../examples/phantom", "-n", "8", "-out", folder + "/phantoms"], cwd=HERE, check=True)


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("-n", type=int, default=30, help="films for each side")
    flags.add_argument("-onnxruntime")
    flags.add_argument("-openvino")
    flags.add_argument("-built", help="a folder that an earlier run with -build has filled")
    flags.add_argument("-build", help="fill this folder and measure nothing")
    flags.add_argument("-side", help=argparse.SUPPRESS)
    flags.add_argument("films", nargs="?")
    arg = flags.parse_args()
    if arg.side:
        return python_side(arg.side)
    if arg.build:
        os.makedirs(arg.build, exist_ok=True)
        return prepare(arg.build, arg.films)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arg.built or temporary
        if not arg.built:
            prepare(folder, arg.films)
        films = sorted(glob.glob((arg.films or folder + "/phantoms") + "/**/*.dcm", recursive=True))
        model = folder + "/model.safetensors"
        sides = [Side("Python, PyTorch eager", [sys.executable, os.path.abspath(__file__), "-side", model]),
                 Side("hcunet, libtorch", [folder + "/films", "-threads", THREADS, model])]
        if arg.onnxruntime:
            sides.append(Side("hcunet, ONNX Runtime", [folder + "/films-onnx", "-threads", THREADS, model], {"ONNXRUNTIME": arg.onnxruntime}))
        if arg.openvino:
            sides.append(Side("hcunet, OpenVINO", [folder + "/films-onnx", "-threads", THREADS, "-provider", "openvino", model], {"ONNXRUNTIME": arg.openvino}))
        answers = {}
        for s in sides:
            answers[s.name] = [s.ask(films[0]) for _ in range(2)][1]
        for i in range(arg.n):
            for s in random.sample(sides, len(sides)):
                s.times.append(s.ask(films[i % len(films)])["seconds"])
        print(f"{arg.n} films of {len(films)}, load {os.getloadavg()[0]:.1f}")
        print(f"{'':24} {'median':>8} {'p99':>8} {'films/s':>8} {'ratio':>6} {'peak':>9} {'opened in':>10}")
        for s in sides:
            p99 = sorted(s.times)[max(0, -(-99 * len(s.times) // 100) - 1)]
            ratio = statistics.median(a / b for a, b in zip(sides[0].times, s.times))
            print(f"{s.name:24} {statistics.median(s.times):7.3f}s {p99:7.3f}s {len(s.times) / sum(s.times):8.2f} {ratio:6.2f} "
                  f"{s.ask('memory')['mib']:5.0f} MiB {s.opened:9.1f}s   {answers[s.name]['pixels']:.0f} pixels, highest {answers[s.name]['highest']:.6f}")
            s.process.stdin.close()
            s.process.wait()


main()
