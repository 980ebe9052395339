"""addertrain plan: figures against hand counts, every recipe on 1, 8 and 64 ranks, and what is refused."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from addertrain.cli import main
from addertrain.data.beton.side_file import SideFile, side_path
from addertrain.data.sets.registry import Place
from addertrain.nn import convert
from addertrain.plan import Plan, PlanError, figures, make_plan, plan_text
from addertrain.plan.decoding import MEASURED_MS, PROCESSOR, decoding_of
from addertrain.plan.text import HEIGHT, WIDTH, rate_picture
from addertrain.recipe import load_recipe
from addertrain.train.network import build_classifier
from tests.source_tree import ROOT

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
RESNET50 = ROOT / "recipes" / "imagenet" / "resnet50.yaml"
RESNET20 = ROOT / "recipes" / "cifar10" / "resnet20.yaml"


def planned(path: Path, world_size: int = 8, *overrides: str, **settings: float) -> Plan:
    return make_plan(load_recipe(path, overrides), world_size=world_size, out=Path("runs"), **settings)


def test_few_images_for_batch_norm_are_told() -> None:
    few = plan_text(planned(RESNET20, 64, "--data.global_batch_size=256"))
    together = plan_text(planned(RESNET20, 64, "--data.global_batch_size=256", "--train.sync_batchnorm=true"))

    assert "batch norm       normalises over 4 images at a time (a rank's own)" in few
    assert "statistics of 4 images are too noisy; train.sync_batchnorm: true normalises over" in few
    assert "normalises over 256 images at a time (of all ranks, because of train.sync_batchnorm)" in together
    assert "too noisy" not in together


def test_resnet50_on_eight_ranks_by_hand() -> None:
    plan = planned(RESNET50)

    assert (plan.rank_batch_size, plan.steps_per_epoch, plan.num_steps) == (32, 5004, 750_600)
    assert plan.operations.num_parameters == 25_558_032
    assert plan.operations.adder_elements == 3_969_122_304
    memory = plan.memory
    assert memory.parameters == memory.gradients == memory.momentum == 4 * 25_558_032
    assert plan.checkpoint_bytes == 8 * 25_558_032 + 8 * memory.buffers
    assert plan.seconds is None
    rates = [plan.rate(step) for step in (0, 187_650, 375_300, 750_600)]
    assert rates == [0.1, pytest.approx(0.05 * (1 + math.sqrt(0.5))), pytest.approx(0.05), 0.0]


@pytest.mark.parametrize(
    ("strategy", "cut"),
    [("ddp", 0), ("zero1", 1), ("zero2", 2), ("zero3", 3), ("fsdp", 3)],
)
def test_strategies_cut_momentum_then_gradients_then_parameters(strategy: str, cut: int) -> None:
    memory = planned(RESNET20, 4, f"--train.strategy={strategy}").memory
    whole, part = 4 * 272_484, 272_484
    expected = [part if index < cut else whole for index in range(3)]

    assert [memory.momentum, memory.gradients, memory.parameters] == expected


def test_activations_are_what_a_real_step_saves() -> None:
    recipe = load_recipe(RESNET20)
    plan = planned(RESNET20, 64)
    data, *_ = figures._data_of(recipe.data)
    torch.manual_seed(0)
    module = build_classifier(recipe, data, steps_per_epoch=1)
    storages = {param.untyped_storage().data_ptr(): 0 for param in module.model.parameters()}
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        storages.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(images)
    assert plan.memory.activations == pytest.approx(sum(storages.values()), rel=0.02)


class Scaled(nn.Module):
    """A fused network of one's own, whose parts share a filter and which holds a tensor of no kind."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(in_channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
        layers += [nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, num_classes, 3)]
        plain = nn.Sequential(*layers)
        self.layers = convert(plain, keep=("6",), example=torch.randn(2, in_channels, 16, 16))
        self.again = nn.Conv2d(8, num_classes, 3)
        self.again.weight = self.layers[6].weight  # type: ignore[index, union-attr, assignment]
        self.scale = torch.ones(1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images * self.scale).mean((2, 3))
        return logits


def scaled(*, num_classes: int, in_channels: int, kind: str) -> nn.Module:
    return Scaled(num_classes, in_channels)


def test_a_fused_network_of_ones_own_is_planned_without_a_number() -> None:
    memory = planned(RESNET20, 1, f"--model.name={__name__}:scaled").memory
    model = Scaled(10, 3)
    assert memory.parameters == 4 * sum(parameter.numel() for parameter in model.parameters())
    assert memory.buffers == sum(buffer.nbytes for buffer in model.buffers())
    assert memory.activations > 0


def test_half_precision_and_parts_save_less() -> None:
    whole = planned(RESNET20, 1).memory.activations
    assert planned(RESNET20, 1, "--train.accumulate=4").memory.activations == pytest.approx(
        whole / 4, rel=0.05
    )
    assert planned(RESNET20, 1, "--train.precision=bf16-mixed").memory.activations < 0.8 * whole


def test_the_rate_gives_the_time() -> None:
    plan = planned(RESNET20, 8, images_per_second=1000.0)

    assert plan.images_per_second == 8000.0
    assert plan.seconds == 400 * 195 * 256 / 8000
    assert "41.6 min at 8000 images/s over all ranks" in plan_text(plan)


def decoding_row(plan: Plan) -> str:
    (row,) = re.findall(r"^decoding +(.*)$", plan_text(plan), re.MULTILINE)
    return str(row)


def without_what_takes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "estimate_memory", lambda *_, **__: figures.Memory(0, 0, 0, 0, 0))
    monkeypatch.setattr(figures, "count_operations", lambda *_: figures.OperationCount((), 0, 0))


def test_the_rate_gives_the_cores_that_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    without_what_takes_time(monkeypatch)
    known = planned(RESNET50, 8, images_per_second=2800.0)
    given = planned(RESNET50, 8, "--data.threads=2", images_per_second=2800.0, decode_ms=1.5)
    originals = planned(RESNET50, 8, "--data.loader=torchvision")

    ms = MEASURED_MS["jpg 400"]
    assert decoding_row(known).startswith(f"{22.4 * ms:.1f} cores at 22400 images/s, {2.8 * ms:.1f} a rank: ")
    assert f"{ms:.3g} ms of a core an image (jpg 400 at 224 pixels on {PROCESSOR}; --decode-ms" in plan_text(
        known
    )
    assert decoding_row(given) == (
        "33.6 cores at 22400 images/s, 4.2 a rank: 1.5 ms of a core an image (--decode-ms)"
    )
    assert "data.threads 2 decodes at most 1333 images/s a rank, which is less; set 5 or more" in plan_text(
        given
    )
    assert "data.threads" not in plan_text(known)
    assert decoding_row(originals).startswith(
        f"{MEASURED_MS['original files']:.3g} cores for every 1000 images/s: "
    )
    assert "decoding" not in plan_text(planned(RESNET20, 8, images_per_second=1000.0))


@pytest.mark.parametrize(
    ("settings", "marked", "kind"),
    [
        ({"format": "jpg", "max_size": 400, "restart_interval": 2}, None, "jpg 400"),
        ({"format": "jpg", "max_size": 400}, None, "jpg 400, whole"),
        ({"format": "jpg", "max_size": 500, "restart_interval": 0}, 0, "jpg 500, whole"),
        ({"format": "jpg", "max_size": None, "restart_interval": 2}, 9, "jpg 500"),
        ({"format": "raw", "max_size": 500, "restart_interval": 2}, 0, "raw 500"),
        ({}, 0, "jpg 500, whole"),
    ],
    ids=["marked", "earlier", "unmarked", "kept", "raw", "another program's"],
)
def test_the_cost_is_that_of_a_file_like_the_one_that_is_there(
    settings: dict[str, Any], marked: int | None, kind: str, tmp_path: Path
) -> None:
    side = SideFile(
        count=9, num_bytes=1, classes=("a",), source="x", settings=settings, skipped=(), page_size=4096,
        index_sha256="", page_sha256=(), addertrain="", marked_jpegs=marked,
    )  # fmt: skip
    beton = tmp_path / "train.beton"
    beton.touch()
    side_path(beton).write_text(side.to_json())
    recipe = load_recipe(RESNET50, [])

    decoding = decoding_of(recipe.data, [Place(beton, is_there=True)], None)

    assert decoding is not None
    assert decoding.ms == MEASURED_MS[kind]
    assert decoding.source.startswith(f"{kind} at 224 pixels")


def test_the_costs_are_those_of_the_document() -> None:
    table = section("docs/data.md", "## Speed and memory")
    rows = dict(re.findall(r"^\| (.+?) \| ([0-9.]+) \|", table, re.MULTILINE))
    names = {"original files": "original files, torchvision v2"} | {
        f"jpg {size}, whole": f"jpg {size}, whole images decoded by FFCV's library" for size in (400, 500)
    }
    for kind, ms in MEASURED_MS.items():
        assert float(rows[names.get(kind, f"FFCV's format, {kind}")]) == ms


def section(document: str, title: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8").partition(f"{title}\n")[2].partition("\n## ")[0]


def test_a_measured_rate_comes_from_real_steps() -> None:
    plan = planned(ROOT / "recipes" / "mnist" / "lenet5bn.yaml", 2, measure=True)

    assert plan.images_per_second is not None
    assert 10 < plan.images_per_second < 1e6


def test_steps_with_a_falling_power_count_at_their_own_speed() -> None:
    falling = ("--schedule.p_start=2", "--schedule.p_epochs=1")
    recipe = ROOT / "recipes" / "mnist" / "lenet5bn.yaml"
    plain, fixed = (
        planned(recipe, 1, images_per_second=500),
        planned(recipe, 1, *falling, images_per_second=500),
    )
    measured = planned(recipe, 1, *falling, measure=True)

    assert plain.num_power_steps == 0
    assert "power  " not in plan_text(plain)
    assert fixed.num_power_steps == fixed.steps_per_epoch
    assert fixed.seconds == plain.seconds
    assert "they are several times slower" in plan_text(fixed)
    rate, between = measured.images_per_second, measured.power_images_per_second
    assert rate is not None
    assert between is not None
    assert 0 < between < rate
    batch, steps, epochs = 256, measured.steps_per_epoch, measured.recipe.schedule.epochs
    assert measured.recipe.data.global_batch_size == batch
    assert measured.seconds == pytest.approx(batch * steps * (1 / between + (epochs - 1) / rate))
    assert f"p falls from 2 to 1 in {steps} steps: {between:.0f} images/s" in plan_text(measured)


def test_a_teacher_of_views_is_named_and_takes_no_time_in_a_step() -> None:
    """Its checkpoint, which does not exist here, is not even opened."""
    teacher = ("frozen", "no_such_run", 0, 4)
    keys = ("teacher", "checkpoint", "feature_weight", "views")
    overrides = (f"--distill.{key}={value}" for key, value in zip(keys, teacher, strict=True))

    plan = planned(ROOT / "recipes" / "digits" / "lenet5bn.yaml", 1, *overrides, measure=True)

    assert plan.images_per_second is not None
    assert "looks at 4 views of 1437 images before the first step, on every rank" in plan_text(plan)


def test_the_picture_shows_a_warm_up_and_a_fall() -> None:
    lines = rate_picture(lambda step: min(step / 10, (100 - step) / 90), 100, epochs=5)

    assert len(lines) == HEIGHT + 2
    top, bottom = lines[0].partition("│")[2], lines[HEIGHT - 1].partition("│")[2]
    assert top.startswith("      ▂█▇")
    assert len(bottom) > WIDTH - 4
    assert lines[-1].strip().startswith("epoch 0")
    assert lines[-1].endswith(" 5")


@pytest.mark.parametrize(
    ("overrides", "settings", "words"),
    [
        (["--data.global_batch_size=4"], {"world_size": 8}, "at least 8 ranks x 1 micro-batches"),
        (["--train.accumulate=64"], {"world_size": 8}, "at least 8 ranks x 64 micro-batches"),
        ([], {"world_size": 0}, "a world size of at least 1, got 0"),
        (["--data.global_batch_size=51200"], {"world_size": 8}, "at most the 50000 training images"),
        (["--train.keep_checkpoints=1000000000"], {"world_size": 1}, "GiB of disk for 1000000000 [+] 1"),
        ([], {"world_size": 1, "memory_gib": 0.25}, "at most 0.25 GiB per rank, got an estimate of 0.4 GiB"),
    ],
)
def test_impossible_plans_are_refused_with_the_reason(
    overrides: list[str], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(PlanError, match=words) as caught:
        make_plan(load_recipe(RESNET20, overrides), out=Path("runs"), **settings)
    assert "\n" not in str(caught.value)


def test_one_image_a_rank_is_refused_where_a_norm_cannot_take_it() -> None:
    digits = ROOT / "recipes" / "digits" / "lenet5bn.yaml"
    assert planned(digits, 64).rank_batch_size == 1  # its norms read the images of all ranks
    with pytest.raises(PlanError, match="trains on 1 image"):
        planned(digits, 64, "--train.sync_batchnorm=false")


@pytest.mark.parametrize("world_size", [1, 8, 64])
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_can_be_planned(path: Path, world_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    is_variant = "_" in path.stem and path.stem != "vgg_small"
    if world_size != 64 or is_variant:  # what takes time is the same for every number of ranks
        without_what_takes_time(monkeypatch)
    plan = planned(path, world_size)

    batch = plan.recipe.data.global_batch_size
    assert batch <= plan.rank_batch_size * world_size < batch + world_size
    assert plan.num_steps > 0


def test_the_command_prints_the_plan_and_refuses_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ADDERTRAIN_DATA", str(tmp_path))
    assert main(["plan", str(RESNET20), "--world-size", "8", "--rate", "500", "--schedule.epochs=10"]) == 0
    text = capsys.readouterr().out
    for words in (
        "epochs: 10",
        "32 per rank",
        "40.37 M per image, in 20 layers",
        "missing",
        "at 4000 images/s",
    ):
        assert words in text

    assert main(["plan", str(RESNET20), "--world-size", "7", "--data.global_batch_size=6"]) == 1
    assert "at least 7 ranks" in capsys.readouterr().err
    assert main(["plan", str(RESNET20), "--decode-ms", "0.5"]) == 2
    assert "--decode-ms with data.loader: ffcv or torchvision, got memory" in capsys.readouterr().err
