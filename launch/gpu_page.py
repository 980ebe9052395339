"""The page of `launch/gpu-check`: the outcome of each part, and measured next to predicted numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from addertrain.bench.layers import NETWORKS
from addertrain.bench.roofline import predict

_MOST_LINES = 60
_PASSES = ("forward", "grad_input")


def page(record: Mapping[str, Any]) -> str:
    """The Markdown page of a record in gpu_check.json."""
    return "\n".join(
        [*_head(record), *_summary(record["parts"]), *_numbers(record["numbers"]), *_output(record["parts"])]
    )


def _head(record: Mapping[str, Any]) -> Iterator[str]:
    machine = record["machine"]
    gpus = "; ".join(machine["gpus"]) or "none"
    yield "# Results of launch/gpu-check"
    yield ""
    if record["is_dry_run"]:
        yield "**A dry run: no GPU computed anything here; the tests' emulator stood in for one.**"
        yield ""
    yield f"GPUs: {gpus}. {machine['nvcc'] or 'no nvcc'}; {machine['cores']} cores; {machine['platform']};"
    yield f"commit {machine['commit'] or 'unknown'}; {machine['written']}."


def _summary(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from ("", "| part | how it went | s | limit, s |", "|---|---|---|---|")
    for part in parts:
        yield f"| {part['name']} | {part['state']} | {part['seconds']:.1f} | {part['limit']:.0f} |"


def _numbers(numbers: Mapping[str, Any]) -> Iterator[str]:
    if "proof" in numbers:
        yield from _proof(numbers["proof"])
    for name, found in numbers.items():
        if name.startswith("layers_"):
            yield from _layers(found)


def _proof(found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## Kernels compared with the reference", "")
    yield from ("| network | type | layers | s | wrong |", "|---|---|---|---|---|")
    for one in found["proofs"]:
        yield (
            f"| {one['network']} | {one['dtype']} | {one['num_layers']} | {one['seconds']:.1f} | "
            f"{len(one['failures'])} |"
        )
    for one in found["proofs"]:
        for failure in one["failures"]:
            names = ", ".join(failure["names"])
            yield f"- {failure['kernel']} at {names} ({failure['layer']}): {failure['error']}"


def _layers(found: Mapping[str, Any]) -> Iterator[str]:
    """Shares of the float32 ceiling at the measured clock, with docs/cuda.md's prediction."""
    dtype = found["dtype"]
    for network, rows in found["rows"].items():
        yield from ("", f"## {network}, {dtype}: share of the float32 ceiling, measured (predicted)", "")
        yield from (
            "| layer | images | GHz | forward | input gradient | filter gradient, 1e9/s |",
            "|---|---|---|---|---|---|",
        )
        shapes = {layer.name: layer for layer in NETWORKS[network].layers}
        for row in rows:
            cells = []
            for name in _PASSES:
                share = row["elements"] / row[name] / row["ceiling"]
                predicted = predict(shapes[row["layer"]], row["images"], dtype, name)
                cells.append(f"{100 * share:.0f} % ({100 * predicted.share:.0f}, {predicted.bound})")
            weight = row["elements"] / row["grad_weight"]
            yield (
                f"| {row['count']} x {row['layer']} | {row['images']} | {row['clock_ghz']:.3f} | "
                f"{cells[0]} | {cells[1]} | {weight:.0f} |"
            )


def _output(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from ("", "## Output")
    for part in parts:
        lines = part["lines"]
        if not lines:
            continue
        yield from ("", f"### {part['name']}", "", "```")
        if len(lines) > _MOST_LINES:
            yield f"... {len(lines) - _MOST_LINES} lines before these are in gpu_check.json"
        yield from lines[-_MOST_LINES:]
        yield "```"
    yield ""
