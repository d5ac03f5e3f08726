"""Writes extract.json: a few numbers from the reference's files stages.json,
state_dict_keys.json and report.json (fastai 1.0.54, torch 1.13.1, float64).

    python3 extract.py ../../../shared/golden > extract.json
"""
import json, sys

golden = sys.argv[1]
load = lambda path: json.load(open(f"{golden}/{path}"))
stages, keys, report = load("b1_forward/stages.json"), load("b1_forward/state_dict_keys.json"), load("b2_train/report.json")


def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = (h ^ b) * 0x100000001B3 % 2**64
    return f"{h:016x}"


out = {}
for option, run in stages.items():
    lines = "".join(f"{name} {shape}\n" for name, shape in keys[option])
    scores = list(run["sizes"]["64"]["stages"].values())[-1]
    entry = {"tensors": len(keys[option]), "names": fnv(lines), "index": scores["sample_idx"],
             "scores": scores["sample"], "largest": scores["absmax"]}
    if option in report:
        step = report[option]["f64"]
        wanted = ["layers.0.0.weight", "layers.4.conv2.0.weight", "layers.12.0.bias"]
        entry["loss"], entry["norm"] = step["loss"], step["total_grad_norm"]
        entry["gradients"] = {k: step["grads"][k]["norm"] for k in wanted if step["grads"].get(k)}
    out[option] = entry
json.dump(out, sys.stdout, indent=1)
