"""Writes features.json: names and shapes of the state dicts of torchvision 0.14.1's
resnet18 and resnet34 without classifier, and a few features of resnet18 for an image.

    /usr/bin/python3 features.py > features.json

Weights and image are computed from their names, those of torchvision, by the formulas
Rule and Fill of internal/golden.
"""
import json, math
import numpy as np, torch, torchvision


def unit(name, n):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 % 2**64
    z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.int64) - 2**23).astype(np.float32) / np.float32(2**23)


def fill(name, shape, center, scale):
    v = unit(name, math.prod(shape)) * np.float32(scale)
    return torch.from_numpy(v + np.float32(center) if center else v).reshape(shape)


def rule(model, name, shape):
    last = name.rsplit(".", 1)[1]
    if last in ("running_mean", "bias"):
        return 0, 0.1
    if last == "running_var":
        return 1, 0.5
    if len(shape) == 1:
        return 0.75, 0.25
    return 0, math.sqrt(4.5 / math.prod(shape[1:]))


np.seterr(over="ignore")
out = {}
for name in ("resnet18", "resnet34"):
    model = getattr(torchvision.models, name)()
    model.fc = torch.nn.Identity()
    out[name] = [[k, list(v.shape)] for k, v in model.state_dict().items()]
    if name == "resnet34":
        continue
    with torch.no_grad():
        for k, v in model.state_dict().items():
            if v.dtype == torch.float32:
                v.copy_(fill(k, v.shape, *rule(model, k, v.shape)))
        model.double().eval()
        x = fill("image", (1, 3, 64, 96), 0, 2).double()
        x = model.relu(model.bn1(model.conv1(x)))
        features = [x]
        x = model.maxpool(x)
        for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = layer(x)
            features.append(x)
    out["features"] = [{"shape": list(f.shape), "sum": f.sum().item(), "first": f.flatten()[:4].tolist(), "last": f.flatten()[-4:].tolist()} for f in features]
print("{" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in out.items()) + "}")
