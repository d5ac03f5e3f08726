"""Makes sgd.json: three parameters of float64 under torch.optim.SGD.

    apt-get install python3-torch   # 1.13.1
    python3 sgd.py >sgd.json

Each run makes six steps with the rates and momenta below, which change from step to
step as in a schedule. The second parameter has no gradient in the first step. The
third parameter is a group of its own, with momentum only from the third step on.
"""

import json

import torch

torch.manual_seed(3)
start = [torch.randn(3, dtype=torch.float64), torch.randn(2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)]
rates = [0.1, 0.2, 0.05, 0.3, 0.1, 0.01]
momenta = [[0.9, 0.0], [0.9, 0.0], [0.8, 0.5], [0.95, 0.5], [0.9, 0.9], [0.9, 0.9]]
grads = [[torch.randn_like(p) for p in start] for _ in rates]


def run(decay=0.0, nesterov=False, dampening=0.0):
    params = [p.clone().requires_grad_() for p in start]
    opt = torch.optim.SGD([{"params": params[:2]}, {"params": params[2:]}], lr=1, momentum=0.5, dampening=dampening, nesterov=nesterov, weight_decay=decay)
    for step, (rate, momentum, grad) in enumerate(zip(rates, momenta, grads)):
        for i, (p, g) in enumerate(zip(params, grad)):
            p.grad = None if i == 1 and step == 0 else g.clone()
        for group, m in zip(opt.param_groups, momentum):
            group["lr"], group["momentum"] = rate, m
        opt.step()
    return [p.tolist() for p in params]


runs = [
    {"decay": d, "nesterov": n, "dampening": a, "end": run(d, n, a)}
    for d, n, a in [(0, False, 0), (0.1, False, 0), (0, True, 0), (0.1, True, 0), (0.1, False, 0.25)]
]
print(json.dumps({"torch": torch.__version__, "start": [p.tolist() for p in start], "rates": rates, "momenta": momenta,
                  "grads": [[g.tolist() for g in step] for step in grads], "runs": runs}))
