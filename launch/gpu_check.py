"""The steps of `launch/gpu-check`, their time limits, and a runner that survives every step."""

import argparse
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import gpu_page

PYTHON = sys.executable
ADDERTRAIN = (PYTHON, "-m", "addertrain")
SANITIZER = "tests/kernels/test_cuda.py::test_compute_sanitizer_finds_nothing"
DTYPES = ("float32", "float16", "bfloat16")
_LEAST_SECONDS = 3.0
_SECONDS_TO_END = 2.0


@dataclass(frozen=True)
class Part:
    """A command with its limit in seconds; `{out}` in a word is the folder of the results."""

    name: str
    command: tuple[str, ...]
    limit: float


@dataclass
class Result:
    """The outcome of a part: right, failed, out of time, or left out."""

    name: str
    state: str
    seconds: float = 0.0
    limit: float = 0.0
    lines: list[str] = field(default_factory=list)


def gpu_parts(num_gpus: int) -> list[Part]:
    """The parts on a machine with GPUs, the most important first."""
    pytest = (PYTHON, "-m", "pytest", "-q", "-n", "0", "-m", "gpu")
    bench = (*ADDERTRAIN, "bench")
    proof = ("proof", "resnet18", "resnet50", "resnet20", "--device", "cuda", "--json", "{out}/proof.json")
    parts = [
        Part("build", ("launch/setup", "all"), 150),
        Part("proof", (*bench, *proof, "--dtype", *DTYPES), 60),
        Part(
            "graph, streams, memory, 20 runs",
            (*pytest, "tests/kernels/test_cuda.py", "--deselect", SANITIZER),
            60,
        ),
        *(
            Part(
                f"layers, {dtype}",
                (*bench, "ops", "resnet50", "resnet20", "--device", "cuda", "--dtype", dtype,
                 "--seconds", "0.3", "--kernels-only", "--json", f"{{out}}/layers_{dtype}.json"),
                60,
            )
            for dtype in DTYPES
        ),
        *(
            Part(
                f"step of {network}, {dtype}",
                (*bench, "step", network, "--device", "cuda", "--batch", batch, "--dtype", dtype,
                 "--seconds", "4"),
                30,
            )
            for network, batch in (("resnet50", "128"), ("resnet18", "256"), ("resnet20", "256"))
            for dtype in DTYPES
        ),
        Part("operator table", (*pytest, "tests/ops"), 120),
        Part("ladder", ("bash", "-c", _LADDER), 60),
        Part("sanitizer", (*pytest, SANITIZER), 100),
    ]  # fmt: skip
    if num_gpus > 1:
        ranks = (PYTHON, "launch/gpu_ranks.py", "--gpus", str(num_gpus), "--out", "{out}/ranks")
        parts[3:3] = [Part("several GPUs", ranks, 180)]
    return parts


_LADDER = (
    "nvcc -std=c++20 -O3 -arch=native -I kernels kernels/ladder/main.cu -o '{out}/ladder' && '{out}/ladder'"
)


def dry_parts() -> list[Part]:
    """The parts without a GPU: the same runner and page, with the emulator instead of the GPU."""
    emulated = (PYTHON, "-m", "tests.proof.emulated", "{out}/proof.json")
    return [
        Part("proof", emulated, 300),
        Part("prediction", (PYTHON, "-m", "addertrain.bench.roofline", "resnet20"), 60),
        Part("a part that fails", (PYTHON, "-c", "raise SystemExit('this part fails on purpose')"), 10),
        Part("a part that hangs", (PYTHON, "-c", "import time; print('hanging'); time.sleep(600)"), 2),
        Part("what comes after", (*ADDERTRAIN, "--version"), 60),
    ]


def run_all(parts: Sequence[Part], out: Path, budget: float, say: Callable[[str], None]) -> list[Result]:
    """Runs the parts one after the other, each within its limit and what is left of the budget."""
    end = time.monotonic() + budget
    results = []
    for part in parts:
        limit = min(part.limit, end - time.monotonic())
        if limit < _LEAST_SECONDS and limit < part.limit:
            results.append(Result(part.name, "left out: no time"))
        else:
            say(f"\n== {part.name} (up to {limit:.0f} s)")
            results.append(run_part(part, out, limit, say))
        say(f"== {part.name}: {results[-1].state}, {results[-1].seconds:.1f} s")
    return results


def run_part(part: Part, out: Path, limit: float, say: Callable[[str], None]) -> Result:
    """Runs one part in a process group of its own, which is ended at the limit in any case."""
    command = [word.replace("{out}", str(out)) for word in part.command]
    result, start = Result(part.name, "", limit=limit), time.monotonic()
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        result.state = f"failed: {error}"
        return result
    assert process.stdout is not None
    is_over = _follow(process.stdout, start + limit, lambda line: (say(line), result.lines.append(line)))
    if not is_over:
        _end(process)
    code = process.wait()
    result.seconds = time.monotonic() - start
    result.state = ("right" if code == 0 else f"failed: exit code {code}") if is_over else "out of time"
    return result


def _follow(stream: IO[str], until: float, take: Callable[[str], object]) -> bool:
    """Passes lines on until the stream ends; returns False if the time is over first."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (left := until - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=left)
        except queue.Empty:
            return False
        if line is None:
            return True
        take(line)
    return False


def _end(process: "subprocess.Popen[str]") -> None:
    """Asks the part's whole group to end, then ends it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            continue


def machine() -> dict[str, object]:
    """The machine on which the numbers were measured."""
    query = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,compute_cap,memory.total",
        "--format=csv,noheader",
    ]
    gpus = _output(query).splitlines()
    commit = _output(["git", "rev-parse", "HEAD"])
    nvcc = (_output(["nvcc", "--version"]).splitlines() or [""])[-1]
    return {
        "gpus": gpus, "nvcc": nvcc, "cores": os.cpu_count(), "platform": platform.platform(),
        "commit": commit, "written": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }  # fmt: skip


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def main(words: Sequence[str]) -> int:
    """Runs all parts and writes the page; returns 1 if a part failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="launch/gpu-check")
    parser.add_argument("--budget", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"), metavar="DIR")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args(words)
    found = machine()
    gpus = found["gpus"]
    assert isinstance(gpus, list)
    if not gpus and not arguments.dry_run:
        print(
            "launch/gpu-check: expected a GPU that nvidia-smi lists, got none; --dry-run needs none.",
            file=sys.stderr,
        )
        return 2
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.json"):
        old.unlink()  # so that no number of an earlier run is mistaken for one of this run
    parts = dry_parts() if arguments.dry_run else gpu_parts(len(gpus))
    results = run_all(parts, out, arguments.budget, lambda line: print(line, flush=True))
    numbers = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    record = {
        "machine": found, "is_dry_run": arguments.dry_run, "parts": [asdict(result) for result in results],
        "numbers": numbers,
    }  # fmt: skip
    (out / "gpu_check.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "gpu_check.md").write_text(gpu_page.page(record), encoding="utf-8")
    print(f"\n{out / 'gpu_check.md'}")
    return 1 if any(result.state.startswith(("failed", "out of time")) for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
