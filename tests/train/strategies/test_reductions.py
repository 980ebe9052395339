"""What ranks reduce: gradients in float32 whatever the precision; flags, not floats, by MIN and MAX."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from addertrain.bench.local_ranks import _in_turn
from addertrain.data import ImageArrays, MemoryLoader
from addertrain.nn import AdderConv2d
from addertrain.recipe import TrainRecipe
from addertrain.train.agreement import Agreement
from addertrain.train.callbacks.guard import _agreed
from addertrain.train.module import AdderClassifier, LabelledImages
from addertrain.train.processes import detect_world
from addertrain.train.strategies.choice import trainer_settings
from addertrain.train.strategies.sharded import gradients_of
from tests.optional import needs_deepspeed
from tests.ranks import on_ranks
from tests.source_tree import python_files
from tests.train.small_runs import OPTIM, launched

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp")
NUM_RANKS = 2
MEAN = (256 + 1) / NUM_RANKS  # 128.5, for which bfloat16 has no room


class _Network(nn.Module):
    """A linear layer whose inputs are 1, beside the adder layer that the optimizer's groups want."""

    def __init__(self) -> None:
        super().__init__()
        self.adder = AdderConv2d(1, 2, 3)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1)) + self.adder(images).mean()
        return logits


class _Linear(AdderClassifier):
    """A loss whose gradient is 256 everywhere on the first rank and 1 on the other."""

    def learn(self, batch: LabelledImages) -> tuple[Tensor, Tensor]:
        logits = self(batch.images)
        return logits, logits.sum() * (256.0 if dist.get_rank() == 0 else 1.0)


class _Gradients(Callback):
    """Keeps what the optimizer is about to use of the linear layer."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        found = gradients_of(trainer, optimizer)
        head = set(map(id, pl_module.get_submodule("model.head").parameters()))
        self.values = [
            value.detach().clone()
            for parameter, value in zip(found.parameters, found.values, strict=True)
            if id(parameter) in head
        ]


def _reduced(strategy: str) -> list[Tensor]:
    """This rank's gradients, or its parts of them, of a step of 16-bit arithmetic."""
    launched()
    world = detect_world()
    torch.manual_seed(0)
    white = torch.full((NUM_RANKS, 1, 8, 8), 255, dtype=torch.uint8)
    loader = MemoryLoader(
        ImageArrays(white, torch.zeros(NUM_RANKS, dtype=torch.int64)),
        global_batch_size=NUM_RANKS, rank=world.rank, world_size=NUM_RANKS, training=True,
    )  # fmt: skip
    module = _Linear(_Network(), mean=(0.0,), std=(1.0,), optim=OPTIM, num_steps=1)
    gradients = _Gradients()
    trainer = Trainer(
        **trainer_settings(TrainRecipe(strategy=strategy, precision="bf16-mixed"), world),  # type: ignore[arg-type]
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, callbacks=[gradients], max_epochs=1,
    )  # fmt: skip
    trainer.fit(module, loader)
    return gradients.values


def _all_reduced() -> dict[str, list[Tensor]]:
    return {strategy: _reduced(strategy) for strategy in STRATEGIES}


@pytest.mark.distributed
@needs_deepspeed
def test_every_strategy_adds_in_float32_where_arithmetic_has_16_bits() -> None:
    ranks: list[dict[str, list[Tensor]]] = on_ranks(NUM_RANKS, _all_reduced, timeout_s=170)

    for strategy in STRATEGIES:
        values = [value for rank in ranks for value in rank[strategy]]
        assert {value.dtype for value in values} == {torch.float32}, strategy
        numbers = [number for value in values for number in value.flatten().tolist()]
        assert set(numbers) <= {MEAN, 0.0}, strategy  # 0: what fills up a part that is cut evenly
        assert numbers.count(MEAN) == 650 * (NUM_RANKS if strategy == "ddp" else 1), strategy


def _agreements() -> tuple[list[bool], set[torch.dtype]]:
    """What ranks agree on when each in turn meets a NaN; the types of what they reduced by MIN and MAX."""
    seen: set[torch.dtype] = {Agreement(1)._flags.dtype}
    all_reduce = dist.all_reduce

    def spy(tensor: Tensor, op: Any = dist.ReduceOp.SUM, **settings: Any) -> Any:
        if op in (dist.ReduceOp.MIN, dist.ReduceOp.MAX):
            seen.add(tensor.dtype)
        return all_reduce(tensor, op, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", spy)
        found = [bool(_agreed(torch.ones(1, dtype=torch.bool), True))]
        for bad_rank in range(dist.get_world_size()):
            loss = torch.tensor(float("nan") if dist.get_rank() == bad_rank else 1.0)
            found.append(bool(_agreed(loss.isfinite().reshape(1), True)))
        _in_turn({"nothing": lambda: None}, 0.0, torch.device("cpu"), rounds=1)
    return found, seen


@pytest.mark.distributed
def test_ranks_agree_by_flags_for_gloos_extremes_of_floats_lose_a_nan() -> None:
    for found, seen in on_ranks(3, _agreements):
        assert found == [True, False, False, False]
        assert len(seen) >= 2
        assert not any(dtype.is_floating_point for dtype in seen), seen


def test_what_takes_extremes_over_ranks_is_known_to_the_test_above() -> None:
    users = {path.name for path in python_files() if "ReduceOp.M" in path.read_text(encoding="utf-8")}

    assert users == {"agreement.py", "guard.py", "local_ranks.py"}
