"""Makes losses.json: values and gradients of the public implementations that
package loss says its losses are equal to.

    apt-get install python3-torch            # 1.13.1
    pip download --no-deps segmentation-models-pytorch==0.6.0
    unzip segmentation_models_pytorch-0.6.0-*.whl -d smp
    PYTHONPATH=smp/segmentation_models_pytorch python3 make.py >losses.json

The path ends inside the package, so that its losses come without its encoders;
they need torch only. Everything is float64. A case holds our configuration, and
what the public implementation of the same makes of one of the inputs.
"""

import json

import torch
import torch.nn.functional as F
import losses as smp
from losses import _functional as smpf, lovasz

torch.manual_seed(7)
torch.Tensor.float = torch.Tensor.double  # lovasz.py works in float32 otherwise


def scores(*shape):
    return (2 * torch.randn(*shape, dtype=torch.float64)).round(decimals=3)


inputs = {
    # Class 2 is not in the second image.
    "softmax3": (scores(2, 3, 2, 3), [[[0, 1, 2], [2, 2, 0]], [[0, 0, 1], [1, 0, 1]]]),
    # Class 1 is nowhere, and 255 is what nobody decided.
    "undecided3": (scores(2, 3, 2, 3), [[[0, 255, 2], [2, 2, 0]], [[255, 0, 0], [0, 255, 2]]]),
    "softmax2": (scores(2, 2, 2, 3), [[[0, 1, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]),
    "sigmoid1": (scores(2, 1, 2, 3), [[[0, 1, 1], [0, 1, 0]], [[0, 0, 1], [0, 0, 0]]]),
    "sigmoid2": (scores(2, 2, 2, 3), [[[0, 1, 2], [2, 2, 0]], [[0, 0, 1], [1, 0, 1]]]),
    "undecided2": (scores(2, 2, 2, 3), [[[0, 255, 2], [2, 1, 0]], [[255, 0, 1], [1, 255, 2]]]),
    "empty1": (scores(2, 1, 2, 3), [[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]),
    "full1": (scores(2, 1, 2, 3), [[[1, 1, 1], [1, 1, 1]], [[1, 1, 1], [1, 1, 1]]]),
}
inputs = {k: (x, torch.tensor(y)) for k, (x, y) in inputs.items()}


def one_hot(x, y):
    """The targets of a sigmoid per class: channel c is class c+1, 255 stays."""
    t = torch.stack([(y == c + 1).long() for c in range(x.shape[1])], 1)
    return torch.where((y == 255).unsqueeze(1), torch.full_like(t, 255), t)


def decided(x, y):
    """The pixels that are not 255, as an image of one column."""
    keep = y != 255
    return x.movedim(1, -1)[keep].t()[None, :, :, None], y[keep][None, :, None]


def per_image(f):
    return lambda x, y: torch.stack([f(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]).mean()


def per_channel(f):
    return lambda x, y: torch.stack([f(x[:, c : c + 1], y[:, c : c + 1]) for c in range(x.shape[1])]).mean()


def multilabel(f):
    return lambda x, y: f(x, one_hot(x, y))


def bce(x, y, **options):
    x, y = decided(x, y)
    t = torch.stack([(y == c + 1) for c in range(x.shape[1])], 1).to(x.dtype)
    smooth = options.pop("smooth", None)
    if "pos_weight" in options:
        options["pos_weight"] = torch.tensor(options["pos_weight"], dtype=x.dtype).reshape(-1, 1, 1)
    return smp.SoftBCEWithLogitsLoss(ignore_index=None, smooth_factor=smooth, **options)(x, t)


def tensor(v):
    return torch.tensor(v, dtype=torch.float64)


def region_absent(score, x, y):
    """1 - score of each class, also of one that is not in the targets."""
    t = F.one_hot(y, x.shape[1]).movedim(-1, 1).to(x.dtype).flatten(2)
    return (1 - score(x.softmax(1).flatten(2), t, smooth=1.0, dims=(0, 2))).mean()


multi, many, one = "multiclass", "multilabel", "binary"
w3 = [0.2, 1.0, 3.5]
# (name, parameters, input): public implementation
cases = [
    ("cross_entropy", {}, "softmax3", F.cross_entropy),
    ("cross_entropy", {}, "softmax2", F.cross_entropy),
    ("cross_entropy", {"class_weights": w3}, "softmax3", lambda x, y: F.cross_entropy(x, y, weight=tensor(w3))),
    ("cross_entropy", {"label_smoothing": 0.1}, "softmax3", lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1)),
    ("cross_entropy", {"ignore_index": 255}, "undecided3", lambda x, y: F.cross_entropy(x, y, ignore_index=255)),
    ("cross_entropy", {"class_weights": w3, "label_smoothing": 0.1, "ignore_index": 255}, "undecided3",
     lambda x, y: F.cross_entropy(x, y, weight=tensor(w3), label_smoothing=0.1, ignore_index=255)),
    ("bce", {}, "sigmoid1", bce),
    ("bce", {}, "empty1", bce),
    ("bce", {}, "full1", bce),
    ("bce", {"pos_weight": [2.5, 0.5], "label_smoothing": 0.1}, "sigmoid2", lambda x, y: bce(x, y, pos_weight=[2.5, 0.5], smooth=0.1)),
    ("bce", {"pos_weight": [2.5, 0.5], "ignore_index": 255}, "undecided2", lambda x, y: bce(x, y, pos_weight=[2.5, 0.5])),
    ("dice", {}, "softmax3", smp.DiceLoss(multi)),
    ("dice", {}, "sigmoid1", smp.DiceLoss(one)),
    ("dice", {"smooth": 1.0, "log": True}, "sigmoid2", multilabel(smp.DiceLoss(many, smooth=1.0, log_loss=True))),
    ("dice", {"ignore_index": 255, "class_weights": w3}, "undecided3", smp.DiceLoss(multi, ignore_index=255, class_weights=w3)),
    ("dice", {"ignore_index": 255}, "undecided2", multilabel(smp.DiceLoss(many, ignore_index=255))),
    ("dice", {"classes": [2, 0], "class_weights": w3}, "softmax3", smp.DiceLoss(multi, classes=[2, 0], class_weights=w3)),
    ("dice", {"per_image": True}, "softmax3", per_image(smp.DiceLoss(multi))),
    ("dice", {"smooth": 1.0, "count_absent": True}, "softmax2", lambda x, y: region_absent(smpf.soft_dice_score, x, y)),
    ("dice", {}, "empty1", smp.DiceLoss(one)),
    ("dice", {}, "full1", smp.DiceLoss(one)),
    ("jaccard", {}, "softmax3", smp.JaccardLoss(multi)),
    ("jaccard", {"classes": [2]}, "sigmoid2", multilabel(smp.JaccardLoss(many, classes=[1]))),
    ("jaccard", {"log": True, "eps": 0.3}, "sigmoid1", smp.JaccardLoss(one, log_loss=True, eps=0.3)),
    ("tversky", {"alpha": 0.3, "beta": 0.7}, "softmax3", smp.TverskyLoss(multi, alpha=0.3, beta=0.7)),
    ("tversky", {"alpha": 0.3, "beta": 0.7, "gamma": 0.75}, "sigmoid2", multilabel(smp.TverskyLoss(many, alpha=0.3, beta=0.7, gamma=0.75))),
    ("tversky", {"alpha": 0.3, "beta": 0.7, "gamma": 0.75, "per_image": True}, "softmax3",
     per_image(smp.TverskyLoss(multi, alpha=0.3, beta=0.7, gamma=0.75))),
    ("focal", {}, "softmax3", smpf.softmax_focal_loss_with_logits),
    ("focal", {"gamma": 0.5, "ignore_index": 255}, "undecided3", lambda x, y: smpf.softmax_focal_loss_with_logits(*decided(x, y), gamma=0.5)),
    ("focal", {"normalized": True}, "softmax2", lambda x, y: smpf.softmax_focal_loss_with_logits(x, y, normalized=True)),
    ("focal", {"reduced_threshold": 0.5}, "softmax3", lambda x, y: smpf.softmax_focal_loss_with_logits(x, y, reduced_threshold=0.5)),
    ("focal", {"one_vs_rest": True, "alpha": 0.25, "class_weights": w3}, "softmax3", smp.FocalLoss(multi, alpha=0.25, class_weights=w3)),
    ("focal", {"one_vs_rest": True, "ignore_index": 255}, "undecided3", smp.FocalLoss(multi, ignore_index=255)),
    ("focal", {"gamma": 3.0, "alpha": 0.75}, "sigmoid1", smp.FocalLoss(one, alpha=0.75, gamma=3.0)),
    ("focal", {"normalized": True, "alpha": 0.25}, "sigmoid2", multilabel(smp.FocalLoss(many, alpha=0.25, normalized=True))),
    ("focal", {"reduced_threshold": 0.5}, "sigmoid1", smp.FocalLoss(one, reduced_threshold=0.5)),
    ("lovasz", {}, "softmax3", smp.LovaszLoss(multi)),
    ("lovasz", {"per_image": True}, "softmax3", smp.LovaszLoss(multi, per_image=True)),
    ("lovasz", {"ignore_index": 255}, "undecided3", smp.LovaszLoss(multi, ignore_index=255)),
    ("lovasz", {"ignore_index": 255, "per_image": True}, "undecided3", smp.LovaszLoss(multi, ignore_index=255, per_image=True)),
    ("lovasz", {}, "sigmoid1", smp.LovaszLoss(one)),
    ("lovasz", {"per_image": True}, "sigmoid1", smp.LovaszLoss(one, per_image=True)),
    ("lovasz", {}, "sigmoid2", multilabel(per_channel(smp.LovaszLoss(one)))),
    ("lovasz", {"ignore_index": 255}, "undecided2", multilabel(per_channel(smp.LovaszLoss(one, ignore_index=255)))),
    ("lovasz", {"count_absent": True}, "softmax2", lambda x, y: lovasz._lovasz_softmax(x.softmax(1), y, classes="all", per_image=False)),
    ("lovasz", {"count_absent": True, "per_image": True}, "softmax2",
     lambda x, y: lovasz._lovasz_softmax(x.softmax(1), y, classes="all", per_image=True)),
    ("lovasz", {}, "empty1", smp.LovaszLoss(one)),
    ("lovasz", {}, "full1", smp.LovaszLoss(one)),
]

out = []
for name, parameters, key, f in cases:
    x, y = inputs[key]
    x = x.clone().requires_grad_()
    if getattr(f, "class_weights", None) is not None:
        f.class_weights = tensor(w3)  # it keeps them in float32
    value = f(x, y)
    value.sum().backward()
    out.append({"name": name, "parameters": parameters, "input": key, "value": value.item(), "grad": x.grad.flatten().tolist()})

print("{")
print(f' "torch": "{torch.__version__}",')
print(' "inputs": {')
print(",\n".join(f'  "{k}": ' + json.dumps({"shape": list(x.shape), "scores": x.flatten().tolist(), "targets": y.flatten().tolist()}) for k, (x, y) in inputs.items()))
print(" },")
print(' "cases": [')
print(",\n".join("  " + json.dumps(c) for c in out))
print(" ]")
print("}")
