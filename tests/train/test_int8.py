"""`evaluate(precision="int8")` on a trained network."""

from pathlib import Path

import pytest

from addertrain.cli import main
from addertrain.train.run import evaluate, fit
from tests.train.small_runs import short_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("int8") / "run"
    fit(short_recipe("--schedule.epochs=6"), run)
    return run


def test_int8_is_near_float32(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_float, in_bytes = evaluate(finished), evaluate(finished, precision="int8")

    assert in_bytes.top1_float32 == in_float.top1
    assert in_bytes.num_images == in_float.num_images
    assert abs(in_bytes.top1 - in_float.top1) <= 2.0  # percent; 360 images
    assert in_bytes.loss != in_float.loss

    assert main(["evaluate", str(finished), "--precision", "int8"]) == 0
    assert f"in int8; float32: {in_float.top1:.2f} %" in capsys.readouterr().out
