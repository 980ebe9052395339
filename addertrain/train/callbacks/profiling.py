"""Profiles a few steps with torch's profiler: a trace of each rank, and a table of operators for TensorBoard.

The callback exists only under `--profile`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, schedule

from addertrain.train.lightning_settings import silence_profiler
from addertrain.train.processes import World

# Steps left alone first: loaders fill, cuDNN chooses, compilers compile. Then some that warm the profiler up.
WAIT_STEPS, WARMUP_STEPS, ACTIVE_STEPS = 5, 2, 3
_OWN = "addertrain::"
_NUM_OPERATORS = 15
_FIRST_ENTRIES = 100_000


@dataclass(frozen=True)
class OperatorTime:
    """An operator's own time in one step on average, without the operators that it calls."""

    name: str
    calls: float
    cpu_ms: float
    device_ms: float


class StepProfile(Callback):
    """Profiles the first steps of a session after a few others, on every rank.

    Every rank writes FOLDER/rank_R.json.gz, a Chrome trace; the first one also FOLDER/operators.md, and the
    same table as text for TensorBoard. On a GPU the allocator's history is recorded at the same time, so that
    a memory snapshot shows where memory was allocated.

    Args:
        folder: `profile/` of the run.
        say: receives one line on what was written, or that the session was too short.
    """

    def __init__(self, folder: Path, world: World, *, say: Callable[[str], None]) -> None:
        self._folder, self._world, self._say = folder, world, say
        self._profile: profile | None = None
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count steps."""
        silence_profiler()
        activities = [ProfilerActivity.CPU]
        if self._has_cuda:
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.memory._record_memory_history(max_entries=_FIRST_ENTRIES)
        self._last_step = trainer.global_step
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=WAIT_STEPS, warmup=WARMUP_STEPS, active=ACTIVE_STEPS, repeat=1),
            on_trace_ready=lambda profiled: self._write(trainer, profiled),
            record_shapes=True,
        )
        self._profile.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts optimizer steps: several micro-batches are one step."""
        if self._profile is not None and trainer.global_step > self._last_step:
            self._last_step = trainer.global_step
            self._profile.step()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says so if the session was too short."""
        if self._profile is not None:
            self._stop()
            if self._world.is_first:
                needed = WAIT_STEPS + WARMUP_STEPS + ACTIVE_STEPS
                self._say(f"profile      nothing: expected a session of at least {needed} optimizer steps")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stops the profiler."""
        if self._profile is not None:
            self._stop()

    @property
    def _has_cuda(self) -> bool:
        return self._world.device_type == "cuda"

    def _stop(self) -> None:
        assert self._profile is not None
        stopped, self._profile = self._profile, None
        stopped.on_trace_ready = None
        stopped.stop()
        if self._has_cuda:
            torch.cuda.memory._record_memory_history(enabled=None)

    def _write(self, trainer: Trainer, profiled: profile) -> None:
        """Writes the results after the last active step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        trace = self._folder / f"rank_{self._world.rank}.json.gz"
        profiled.export_chrome_trace(str(trace))
        if self._world.is_first:
            table = operator_table(operator_times(profiled.key_averages(), num_steps=ACTIVE_STEPS))
            (self._folder / "operators.md").write_text(table + "\n", encoding="utf-8")
            self._write_text(table, trainer.global_step)
            self._say(f"profile      {trace} (chrome://tracing or Perfetto), {self._folder / 'operators.md'}")
        self._profile = None
        if self._has_cuda:
            torch.cuda.memory._record_memory_history(enabled=None)

    def _write_text(self, table: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import, which only this rank spends

        with SummaryWriter(str(self._folder.parent), filename_suffix=".profile") as writer:
            writer.add_text("profile/operators", table, step)


def operator_times(events: Sequence[FunctionEventAvg], *, num_steps: int) -> list[OperatorTime]:
    """The operators by their own time, on the device if there is one, the longest first."""
    times = [
        OperatorTime(
            str(event.key),
            event.count / num_steps,
            event.self_cpu_time_total / 1000 / num_steps,
            event.self_device_time_total / 1000 / num_steps,
        )
        for event in events
        if not str(event.key).startswith("ProfilerStep")
    ]
    return sorted(times, key=lambda time: (time.device_ms, time.cpu_ms), reverse=True)


def operator_table(times: Sequence[OperatorTime]) -> str:
    """In Markdown: the operators with the most time of their own, and every one of this package, in bold."""
    cpu, device = sum(time.cpu_ms for time in times), sum(time.device_ms for time in times)
    total = device or cpu
    shown = [time for i, time in enumerate(times) if i < _NUM_OPERATORS or _is_own(time)]
    lines = [
        f"Own time of operators a step, over {ACTIVE_STEPS} steps: {cpu:.1f} ms of CPU, {device:.1f} ms of "
        "GPU. Bold: this package's.",
        "",
        "| operator | calls | CPU, ms | GPU, ms | share, % |",
        "|---|---|---|---|---|",
    ]
    for time in shown:
        name = f"**{time.name}**" if _is_own(time) else time.name.replace("|", "\\|")
        share = 100 * (time.device_ms if device else time.cpu_ms) / max(total, 1e-9)
        lines.append(
            f"| {name} | {time.calls:.4g} | {time.cpu_ms:.3f} | {time.device_ms:.3f} | {share:.1f} |"
        )
    return "\n".join(lines)


def _is_own(time: OperatorTime) -> bool:
    """Operators by their namespace, kernels on a GPU by their names; not autograd's nodes around them."""
    is_node = time.name.startswith(("autograd::", "GeneratedBackward"))
    return time.name.startswith(_OWN) or ("adder2d" in time.name and not is_node)
