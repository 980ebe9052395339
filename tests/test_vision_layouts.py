"""Images in COCO's and VOC's layouts are read as what was written, and a network trains on them."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from docs.examples import detection, segmentation
from docs.examples.digits_on_photographs import DIGITS, NUM_CLASSES, Sample, class_map
from docs.examples.layouts import IGNORED, CocoObjects, VocBoxes, VocClassMaps
from tests.composed_images import composed
from tests.source_tree import ROOT

NAMES = [str(digit) for digit in DIGITS]
JPEG_ERROR = 0.1
"""Of the mean over pixels, from 0 to 1."""


@pytest.fixture
def samples() -> list[Sample]:
    return list(composed(4))


def _write_voc(root: Path, samples: list[Sample]) -> None:
    voc = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        (voc / folder).mkdir(parents=True)
    for part in ("Main", "Segmentation"):
        (voc / "ImageSets" / part).mkdir(parents=True)
        listed = "".join(f"{number}\n" for number in range(len(samples)))
        (voc / "ImageSets" / part / "train.txt").write_text(listed)
    for number, (image, target) in enumerate(samples):
        to_pil_image(image).save(voc / "JPEGImages" / f"{number}.jpg", quality=95)
        classes = class_map(target).to(torch.uint8)
        classes[:2] = IGNORED
        palette = Image.fromarray(classes.numpy(), "P")
        palette.putpalette([value for index in range(256) for value in (index, 255 - index, index)])
        palette.save(voc / "SegmentationClass" / f"{number}.png")
        annotation = ElementTree.Element("annotation")
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            _add_object(annotation, NAMES[label - 1], [box[0] + 1, box[1] + 1, box[2], box[3]])
        _add_object(annotation, "unknown", [1, 1, 9, 9])
        ElementTree.ElementTree(annotation).write(voc / "Annotations" / f"{number}.xml")


def _add_object(annotation: ElementTree.Element, name: str, corners: list[float]) -> None:
    entry = ElementTree.SubElement(annotation, "object")
    ElementTree.SubElement(entry, "name").text = name
    box = ElementTree.SubElement(entry, "bndbox")
    for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
        ElementTree.SubElement(box, key).text = str(int(value))


def _write_coco(root: Path, samples: list[Sample]) -> Path:
    """Masks run-length encoded, categories with gaps, and one crowd that is to be left out."""
    images, annotations = [], []
    for number, (image, target) in enumerate(samples):
        to_pil_image(image).save(root / f"{number}.jpg", quality=95)
        images.append({"id": number, "file_name": f"{number}.jpg", "height": 64, "width": 64})
        for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
            x0, y0, x1, y1 = box.tolist()
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 10 * int(label)}
            entry |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0, "area": int(mask.sum())}
            annotations.append(entry | {"segmentation": {"size": [64, 64], "counts": _runs(mask)}})
    annotations.append(annotations[-1] | {"id": len(annotations) + 1, "iscrowd": 1})
    categories = [{"id": 10 * (place + 1), "name": name} for place, name in enumerate(NAMES)]
    path = root / "instances_train.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def _runs(mask: Tensor) -> list[int]:
    """Lengths of runs of zeros and ones, column by column, zeros first."""
    runs, value = [0], 0
    for pixel in mask.T.flatten().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def test_voc_boxes_and_classes_come_back(tmp_path: Path, samples: list[Sample]) -> None:
    _write_voc(tmp_path, samples)
    for (image, target), (expected_image, expected) in zip(VocBoxes(tmp_path, NAMES), samples, strict=True):
        assert torch.equal(target["boxes"], expected["boxes"])
        assert torch.equal(target["labels"], expected["labels"])
        assert (image - expected_image).abs().mean() < JPEG_ERROR


def test_voc_class_maps_come_back_and_train(tmp_path: Path, samples: list[Sample]) -> None:
    _write_voc(tmp_path, samples)
    read = VocClassMaps(tmp_path, size=64)
    for (image, classes), (_, target) in zip(read, samples, strict=True):
        assert image.shape == (3, 64, 64)
        assert torch.equal(classes[2:], class_map(target)[2:])
        assert (classes[:2] == IGNORED).all()
    batch = (torch.stack([image for image, _ in read]), torch.stack([classes for _, classes in read]))
    losses = segmentation.train(segmentation.network("adder", NUM_CLASSES), [batch] * 8, num_steps=8)

    assert losses[-1] < losses[0]
    assert VocClassMaps(tmp_path, size=32)[0][1].unique().tolist() == read[0][1].unique().tolist()


def test_the_page_s_programs_run_on_small_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of docs/detection-and-segmentation.md, with other sizes and names."""
    page = (ROOT / "docs" / "detection-and-segmentation.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    others = [
        {'"data", 480, 8, 50, 0.1, 21': '"data", 32, 2, 1, 0.1, 21'},
        {'"data", 480, 4, 50, 0.05': '"data", 64, 2, 1, 0.05', '("person", "dog", "car")': repr(NAMES)},
    ]
    _write_voc(tmp_path / "data", list(composed(4)))
    monkeypatch.chdir(tmp_path)
    made: list[dict[str, Any]] = [{}, {}]
    for program, replaced, names in zip(programs, others, made, strict=True):
        for text, other in replaced.items():
            assert text in program
            program = program.replace(text, other)
        exec(compile(program, "page", "exec"), names)
        assert names["step"] == 2
        assert all(value.isfinite().all() for value in names["model"].state_dict().values())

    assert made[0]["predicted"].shape == (2, 32, 32)
    assert [sorted(each) for each in made[1]["found"]] == [["boxes", "labels", "scores"]] * 2
    assert (tmp_path / "network.pt").is_file()
    assert (tmp_path / "detector.pt").is_file()


def test_coco_boxes_masks_and_classes_come_back_and_train(tmp_path: Path, samples: list[Sample]) -> None:
    pytest.importorskip("pycocotools")
    read = CocoObjects(tmp_path, _write_coco(tmp_path, samples))
    for (image, target), (expected_image, expected) in zip(read, samples, strict=True):
        assert all(torch.equal(target[key], expected[key]) for key in ("boxes", "labels", "masks"))
        assert (image - expected_image).abs().mean() < JPEG_ERROR
    batches = list(detection.batches_of(read, batch_size=2)) * 4
    losses = detection.train(detection.network("adder", NUM_CLASSES, size=64), batches, num_steps=8)

    assert sum(losses[-2:]) < sum(losses[:2])


def test_coco_without_pycocotools_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"^COCO's annotations need pycocotools: pip install"):
        CocoObjects(tmp_path, tmp_path / "instances.json")
