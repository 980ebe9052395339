"""The example of detection: it trains, with few images and frozen norms too, and is scored rightly."""

from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from addertrain.nn import AdderConv2d, FrozenBatchNorm2d, freeze_norms, param_groups, synchronise_norms
from addertrain.optim import AdderSGD
from docs.examples.detection import Batch, backbone, batches_of, detect, f1, network, train
from docs.examples.digits_on_photographs import NUM_CLASSES
from docs.examples.export import write_detector
from tests.composed_images import composed
from tests.ranks import on_ranks


def _batch(count: int) -> Batch:
    (batch,) = batches_of(composed(count), batch_size=count)
    return batch


def _falls(losses: list[float]) -> bool:
    return sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize("kind", ["adder", pytest.param("conv", marks=pytest.mark.long)])
def test_loss_falls(kind: Literal["adder", "conv"]) -> None:
    assert _falls(train(network(kind, NUM_CLASSES, size=64), [_batch(4)] * 20, num_steps=20))


def test_the_backbone_adds_and_what_has_no_norm_multiplies() -> None:
    model = network("adder", NUM_CLASSES)
    layers = [name for name, each in model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    adders = [each for each in model.modules() if isinstance(each, AdderConv2d)]

    assert len(adders) == 14
    assert all(layer.rectified for layer in adders)
    assert [name for name in layers if "fpn" not in name and "rpn" not in name and "roi" not in name] == [
        "backbone.body.conv1"
    ]


def test_retinanet_trains_on_the_same_backbone() -> None:
    anchors = AnchorGenerator(((16,), (24,), (32,), (48,)), ((0.5, 1.0, 2.0),) * 4)
    model = RetinaNet(backbone("adder"), NUM_CLASSES, min_size=64, max_size=64, anchor_generator=anchors)

    assert _falls(train(model, [_batch(2)] * 12, num_steps=12, lr=0.5))


@pytest.mark.parametrize("batch_size", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize("norms", ["of the batch", "frozen"])
def test_a_batch_of_one_or_two_trains(batch_size: int, norms: str) -> None:
    model = network("adder", NUM_CLASSES, size=64)
    images, targets = _batch(batch_size)
    if norms == "frozen":
        freeze_norms(model, [images])
    losses = train(model, [(images, targets)] * 20, num_steps=20)

    assert sum(isinstance(each, FrozenBatchNorm2d) for each in model.modules()) == (15 * (norms == "frozen"))
    assert _falls(losses)


def test_recalibration_takes_lists_of_images_and_detects() -> None:
    model = network("adder", NUM_CLASSES, size=64)
    images, _ = _batch(3)
    found = detect(model, [images[:2], images[2:]], [images], score=0.0)

    assert len(found) == 3
    assert all(len(each["boxes"]) == len(each["labels"]) for each in found)


def test_score_counts_each_object_once_and_wants_its_class() -> None:
    box, other = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]
    true = [{"boxes": torch.tensor([box, other]), "labels": torch.tensor([1, 2])}]

    def found(*entries: tuple[list[float], int]) -> list[dict[str, torch.Tensor]]:
        boxes, labels = zip(*entries, strict=True)
        scores = torch.linspace(0.9, 0.6, len(boxes))
        return [{"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "scores": scores}]

    assert f1(found((box, 1), (other, 2)), true) == 1.0
    assert f1(found((box, 1), (box, 1)), true) == 0.5
    assert f1(found((box, 2), (other, 2)), true) == 0.5
    assert f1(found(([0.0, 0.0, 10.0, 4.0], 1)), true) == 0.0


@pytest.mark.long
def test_onnxruntime_detects_what_torch_detects(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = network("adder", NUM_CLASSES, size=64)
    images, _ = _batch(2)
    freeze_norms(model, [images])
    write_detector(model, images[0], tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": images[1].numpy()})
    with torch.no_grad():
        (expected,) = model.eval()([images[1]])

    assert len(expected["boxes"]) > 0
    for each, key in zip(found, ("boxes", "labels", "scores"), strict=True):
        torch.testing.assert_close(torch.from_numpy(each), expected[key], rtol=1e-3, atol=1e-3)


def _network_on_rank() -> list[float]:
    torch.manual_seed(0)
    model = network("adder", NUM_CLASSES, size=64)
    synchronise_norms(model)
    optimizer = AdderSGD(param_groups(model, weight_decay=1e-4), lr=0.05)
    wrapped = DistributedDataParallel(model)
    images, targets = _batch(2)
    rank = dist.get_rank()
    for _ in range(2):
        optimizer.zero_grad()
        sum(wrapped(images[rank : rank + 1], targets[rank : rank + 1]).values()).backward()
        optimizer.step()
    norm = model.backbone.body.layer3[1].bn2
    return [*norm.running_mean.tolist(), *model.backbone.body.layer3[1].conv2.weight.flatten()[:9].tolist()]


@pytest.mark.long
@pytest.mark.distributed
def test_two_ranks_with_one_image_each_keep_one_network() -> None:
    first, second = on_ranks(2, _network_on_rank)

    assert first == second
    assert torch.tensor(first).isfinite().all()
