"""launch/gpu-check: a part that fails or hangs ends no other, and the page says how each went."""

import json
import sys
import time
from pathlib import Path

import pytest

from addertrain.bench.layers import NETWORKS
from addertrain.bench.roofline import CLOCK_HZ, LANES, MULTIPROCESSORS, predict
from tests.commands import run_command
from tests.source_tree import ROOT, launch_module

gpu_page = launch_module("gpu_page")
gpu_check = launch_module("gpu_check")


def _part(name: str, code: str) -> object:
    return gpu_check.Part(name, (sys.executable, "-c", code), 60.0)


# A shell, because it starts at once on a busy machine too; what ignores a signal still does so after exec.
IGNORES_SIGTERM = ("sh", "-c", "trap '' TERM; echo here; exec sleep 600")


def test_no_part_ends_another(tmp_path: Path) -> None:
    parts = [
        _part("fails", "print('one'); raise SystemExit(3)"),
        gpu_check.Part("hangs", IGNORES_SIGTERM, 1.5),
        gpu_check.Part("absent", ("no-such-program",), 60.0),
        _part("follows", "import sys; print(sys.argv[1])"),
    ]
    parts[3] = gpu_check.Part("follows", (*parts[3].command, "{out}/x"), 60.0)
    said: list[str] = []
    start = time.monotonic()

    results = gpu_check.run_all(parts, tmp_path, 60.0, said.append)

    assert time.monotonic() - start < 50
    states = {result.name: result.state for result in results}
    assert states["fails"] == "failed: exit code 3"
    assert states["hangs"] == "out of time"
    assert states["absent"].startswith("failed: ")
    assert states["follows"] == "right"
    assert results[1].lines == ["here"]
    assert results[3].lines == [f"{tmp_path}/x"]
    assert "one" in said, "text goes to the terminal as it comes"


def test_what_no_time_is_left_for_is_left_out(tmp_path: Path) -> None:
    parts = [_part("long", "import time; time.sleep(600)"), _part("next", "pass")]

    results = gpu_check.run_all(parts, tmp_path, 3.5, lambda line: None)

    assert [result.state for result in results] == ["out of time", "left out: no time"]


def test_the_page_has_measured_beside_predicted() -> None:
    """A layer that ran at half the predicted speed, on the GPU that the prediction is for."""
    layer = NETWORKS["resnet50"].layers[1]
    predicted = predict(layer, 128, "float16", "forward")
    clock = CLOCK_HZ / 1e9
    ceiling = MULTIPROCESSORS * LANES * clock / 2
    elements = 128 * layer.elements_per_image / 1e9
    seconds = 2 * elements / ceiling / predicted.share
    row = {
        "layer": layer.name, "count": 1, "images": 128, "elements": elements, "clock_ghz": clock,
        "ceiling": ceiling, "forward": seconds, "grad_input": seconds, "grad_weight": seconds,
    }  # fmt: skip
    failure = {"kernel": "adder2d", "names": ["conv1"], "layer": "3x3", "error": "1, expected 2"}
    proof = {
        "network": "resnet50",
        "dtype": "float16",
        "num_layers": 22,
        "seconds": 1.0,
        "failures": [failure],
    }
    part = {"name": "proof", "state": "failed: exit code 1", "seconds": 2.0, "limit": 60.0, "lines": ["text"]}
    record = {
        "machine": {"gpus": ["H200"], "nvcc": "", "cores": 2, "platform": "x", "commit": "", "written": ""},
        "is_dry_run": False,
        "parts": [part],
        "numbers": {
            "proof": {"proofs": [proof]},
            "layers_float16": {"dtype": "float16", "rows": {"resnet50": [row]}},
        },
    }

    page = gpu_page.page(record)

    share = 100 * predicted.share
    assert f"| {share / 2:.0f} % ({share:.0f}, {predicted.bound}) |" in page
    assert "| proof | failed: exit code 1 | 2.0 | 60 |" in page
    assert "- adder2d at conv1 (3x3): 1, expected 2" in page
    assert "\ntext\n" in page


def test_every_command_of_a_part_is_there() -> None:
    """Files and benchmarks that the parts name; the GPUs' part only where there are several."""
    one, two = gpu_check.gpu_parts(1), gpu_check.gpu_parts(2)
    words = [word for part in two for word in part.command]

    assert {part.name for part in two} - {part.name for part in one} == {"several GPUs"}
    for word in words:
        if word.startswith(("tests/", "launch/")):
            assert (ROOT / word.split("::")[0]).exists(), word
    assert two[0].name == "build"
    assert two[1].name == "proof"


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    if gpu_check.machine()["gpus"]:
        pytest.skip("there is a GPU")
    result = run_command("launch/gpu-check", "--out", str(tmp_path / "out"))

    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("launch/gpu-check: expected a GPU")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_dry_run_makes_the_page(tmp_path: Path) -> None:
    result = run_command("launch/gpu-check", "--dry-run", "--out", str(tmp_path), timeout_s=550)

    assert result.returncode == 1, "two parts go wrong on purpose"
    record = json.loads((tmp_path / "gpu_check.json").read_text())
    states = {part["name"]: part["state"] for part in record["parts"]}
    assert states == {
        "proof": "right",
        "prediction": "right",
        "a part that fails": "failed: exit code 1",
        "a part that hangs": "out of time",
        "what comes after": "right",
    }
    assert "| small | bfloat16 | 4 |" in (tmp_path / "gpu_check.md").read_text()
