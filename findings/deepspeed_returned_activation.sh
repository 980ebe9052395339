#!/usr/bin/env bash
# DeepSpeed 0.19.8, ZeRO stages 1 and 2, gradient accumulation, loss.backward(): where the forward also returns an
# activation, which nobody uses, the layers below it get smaller gradients.
#
# The engine divides by gradient_accumulation_steps, n, in a hook on every tensor that its forward returns. On its way
# to the first layers a gradient passes the logits and then, inside the network, the returned activation, and is
# divided at both: below the activation it is n times too small, above it right. engine.backward(loss) divides the
# loss, once.
#
# Why a good guess is wrong: an output that no loss reads has no gradient, so returning it cannot change one; in torch
# it does not. DeepSpeed calls its loss.backward() compatible with PyTorch's, and it is so for a forward of one tensor,
# for heads side by side, without accumulation, and at stage 3. Behind an optimizer that normalises gradients the steps
# even keep their size.
#
#   findings/deepspeed_returned_activation.sh   needs Python 3.11+; installs into a temporary folder, torch with its
#                                               CUDA libraries among it, and runs on the CPU
#
# Prints the steps of the first and of the last layer as shares of torch's. With n = 4, at both stages: 0.25 and 1.00
# where the activation is returned and loss.backward() is called; 1.00 and 1.00 where it is kept, or engine.backward
# is called. Ends with 1 where the behaviour is another one.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" torch==2.14.1 numpy==2.4.6 setuptools wheel
DS_BUILD_OPS=0 "${pip[@]}" --no-build-isolation deepspeed==0.19.8
export DS_ACCELERATOR=cpu LOCAL_RANK=0
"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import logging
import sys

import torch
import torch.distributed as dist

import deepspeed

deepspeed.utils.logging.logger.setLevel(logging.ERROR)
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiled otherwise; an all-reduce of inference
dist.init_process_group("gloo", f"file://{sys.argv[1]}/meet", rank=0, world_size=1)
NUM_STEPS = 4


class Network(torch.nn.Module):
    def __init__(self, returns_activation):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)
        self.returns_activation = returns_activation

    def forward(self, x):
        activation = torch.tanh(self.first(x))
        logits = self.last(activation)
        return (logits, activation) if self.returns_activation else (logits,)


def loss_of(model, seed):
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.cross_entropy(model(x)[0], torch.arange(32) % 4)


def steps_of(model):
    start = Network(False)
    return [(getattr(model, name).weight - getattr(start, name).weight).detach() for name in ("first", "last")]


def torch_steps():
    model = Network(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(NUM_STEPS):
        (loss_of(model, seed) / NUM_STEPS).backward()
    optimizer.step()
    return steps_of(model)


def engine_steps(stage, returns_activation, by_the_engine):
    model = Network(returns_activation)
    config = {
        "train_micro_batch_size_per_gpu": 32,
        "gradient_accumulation_steps": NUM_STEPS,
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage},
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    for seed in range(NUM_STEPS):
        loss = loss_of(engine, seed)
        engine.backward(loss) if by_the_engine else loss.backward()
        engine.step()
    return steps_of(model)


expected = torch_steps()
print(f"deepspeed {deepspeed.__version__}, torch {torch.__version__}")
print("stage   activation   backward   first layer's step   last layer's")
is_as_described = True
for stage in (1, 2):
    for returns_activation, by_the_engine in ((True, False), (True, True), (False, False)):
        steps = engine_steps(stage, returns_activation, by_the_engine)
        shares = [float((step * right).sum() / right.square().sum()) for step, right in zip(steps, expected)]
        words = "returned" if returns_activation else "kept", "engine's" if by_the_engine else "loss's"
        print(f"{stage:5} {words[0]:>12} {words[1]:>10} {shares[0]:20.2f} {shares[1]:14.2f}")
        first = 1 / NUM_STEPS if returns_activation and not by_the_engine else 1.0
        is_as_described &= abs(shares[0] - first) < 1e-3 and abs(shares[1] - 1.0) < 1e-3
raise SystemExit(0 if is_as_described else "the behaviour is another one")
PYTHON
