"""bench scaling: the model behind the projection by hand, and one measurement on two ranks."""

import json
from pathlib import Path

import pytest
import torch

from addertrain.bench import local_ranks, scaling
from addertrain.bench.local_ranks import LocalTimes
from addertrain.bench.projection import BUCKET_BYTES, Cluster, exposed_time, project
from addertrain.models import build_model
from tests.ranks import on_ranks

CLUSTER = Cluster(gpus_per_machine=4, bandwidth_in=1e9, bandwidth_out=1e8, latency_in=1e-6, latency_out=1e-5)


def test_one_gpu_has_nothing_to_exchange() -> None:
    alone = project(1, compute=0.1, gradient_bytes=10**8, cluster=CLUSTER, is_sharded=True)

    assert (alone.all_reduce, alone.exposed, alone.efficiency) == (0.0, 0.0, 1.0)


def test_the_all_reduce_by_hand() -> None:
    # 8 GPUs on 2 machines: 2*3/4 of the bytes inside, 2*1/2 between; one bucket, 6 hops inside, 2 between.
    eight = project(8, compute=1.0, gradient_bytes=10**6, cluster=CLUSTER)

    assert eight.all_reduce == pytest.approx(1.5e-3 + 1e-2 + 6e-6 + 2e-5)
    assert eight.exposed == eight.all_reduce, "a single bucket leaves after the backward pass"
    sharded = project(8, compute=1.0, gradient_bytes=10**6, cluster=CLUSTER, is_sharded=True)
    assert sharded.exposed - eight.exposed == pytest.approx(6e-6 + 2e-5)


def test_the_backward_pass_hides_all_but_the_last_bucket_and_what_is_too_long() -> None:
    assert exposed_time(0.4, 9.0, buckets=4) == pytest.approx(0.1)
    assert exposed_time(6.0, 4.0, buckets=2) == pytest.approx(6.0 - 4.0 * 2 / 3 / 2)


def test_efficiency_falls_with_the_number_of_gpus_and_rises_with_computation() -> None:
    bytes_of_two_buckets = 2 * BUCKET_BYTES
    by_size = [
        project(n, compute=0.02, gradient_bytes=bytes_of_two_buckets, cluster=Cluster()).efficiency
        for n in (1, 2, 8, 16, 64, 512)
    ]
    longer = project(512, compute=0.2, gradient_bytes=bytes_of_two_buckets, cluster=Cluster())

    assert by_size == sorted(by_size, reverse=True)
    assert 0.5 < by_size[-1] < longer.efficiency < 1.0


def _measured() -> LocalTimes:
    return local_ranks.measure("lenet5bn", batch=4, seconds=0.0, device=torch.device("cpu"))


def test_ranks_time_a_step_and_its_parts() -> None:
    two, _ = on_ranks(2, _measured)

    assert two.num_ranks == 2
    assert 0 < two.all_reduce < two.step
    assert two.compute > 0
    assert two.gradient_bytes == 4 * sum(
        p.numel() for p in build_model("lenet5bn", kind="adder", num_classes=10).parameters()
    )


def test_what_was_measured_is_projected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    times = LocalTimes(2, step=0.03, compute=0.02, all_reduce=0.005, gradient_bytes=10**6)
    monkeypatch.setattr(scaling, "measure_ranks", lambda *_, **__: times)

    assert scaling.main(["--ranks", "2", "--batch", "4", "--json", str(file)]) == 0

    report = json.loads(file.read_text())
    assert [one["num_gpus"] for one in report["projections"]] == [8, 64, 512]
    assert {one["compute"] for one in report["projections"]} == {0.02}
    assert "as measured here on 2 rank(s)" in capsys.readouterr().out


def test_a_given_time_is_projected_without_a_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["resnet18", "--compute-ms", "20", "--gpus", "8"]) == 0

    *_, line = capsys.readouterr().out.splitlines()
    assert line.split()[:3] == ["8", "|", "256"]


def test_efficiencies_are_relative_to_the_fewest_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(_: str, num_ranks: int, **__: object) -> LocalTimes:
        return LocalTimes(num_ranks, 0.02 * num_ranks, compute=0.02, all_reduce=0.005, gradient_bytes=10**6)

    monkeypatch.setattr(scaling, "measure_ranks", measured)

    assert scaling.main(["--ranks", "4,2,4"]) == 0

    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("    2 |", "    4 |"))]
    assert [row.split()[-2] for row in rows] == ["100", "50"]
