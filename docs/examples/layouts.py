"""Images of your own in the layouts of COCO and PASCAL VOC, as the examples' networks take them.

    VOC    ROOT/VOCdevkit/VOC2012/{JPEGImages, Annotations, SegmentationClass, ImageSets}
    COCO   a folder of images, and a file instances_*.json

torchvision reads both; what is here are its samples as images float32 [3, H, W] from 0 to 1 with boxes and
classes, or class maps.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CocoDetection, VOCDetection, VOCSegmentation
from torchvision.transforms import functional

from docs.examples.digits_on_photographs import Sample

IGNORED = 255
"""In class maps: pixels that count neither in the loss nor in the score."""


class VocBoxes(Dataset[Sample]):
    """Images and boxes of a list in ImageSets/Main. `names` are the classes from 1 on; others are left out.

    VOC counts pixels from 1 and includes the last; boxes here begin at 0 and end before x1 and y1.
    """

    def __init__(self, root: Path, names: Sequence[str], *, image_set: str = "train") -> None:
        self.voc = VOCDetection(root, image_set=image_set)
        self.names = tuple(names)

    def __len__(self) -> int:
        return len(self.voc)

    def __getitem__(self, index: int) -> Sample:
        image, annotation = self.voc[index]
        objects = [each for each in annotation["annotation"].get("object", []) if each["name"] in self.names]
        boxes = [[float(each["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax")] for each in objects]
        corner = torch.tensor([1.0, 1.0, 0.0, 0.0])
        labels = [1 + self.names.index(each["name"]) for each in objects]
        return functional.to_tensor(image), _target(torch.tensor(boxes).view(-1, 4) - corner, labels)


class VocClassMaps(Dataset[tuple[Tensor, Tensor]]):
    """Images and class maps of a list in ImageSets/Segmentation, resized to a square of `size` pixels."""

    def __init__(self, root: Path, *, size: int, image_set: str = "train") -> None:
        self.voc = VOCSegmentation(root, image_set=image_set)
        self.size = size

    def __len__(self) -> int:
        return len(self.voc)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, classes = self.voc[index]
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        classes = classes.resize((self.size, self.size), Image.Resampling.NEAREST)  # palette: no mixtures
        return functional.to_tensor(image), functional.pil_to_tensor(classes)[0].long()


class CocoObjects(Dataset[Sample]):
    """Images, boxes and masks of COCO's objects; its category ids, which have gaps, become classes from 1 on.

    Objects that stand for crowds, and those without an area, are left out.

    Raises:
        ModuleNotFoundError: without pycocotools, which torchvision reads COCO with.
    """

    def __init__(self, images: Path, annotations: Path) -> None:
        if importlib.util.find_spec("pycocotools") is None:
            raise ModuleNotFoundError("COCO's annotations need pycocotools: pip install pycocotools")
        self.coco = CocoDetection(images, annotations)
        self.classes = {each: 1 + place for place, each in enumerate(sorted(self.coco.coco.getCatIds()))}

    def __len__(self) -> int:
        return len(self.coco)

    def __getitem__(self, index: int) -> Sample:
        image, objects = self.coco[index]
        objects = [each for each in objects if not each.get("iscrowd") and min(each["bbox"][2:]) > 0]
        boxes = torch.tensor([each["bbox"] for each in objects]).view(-1, 4)
        target = _target(
            torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
            [self.classes[each["category_id"]] for each in objects],
        )
        masks = [torch.from_numpy(self.coco.coco.annToMask(each)) for each in objects]
        empty = torch.zeros(0, image.height, image.width, dtype=torch.uint8)
        return functional.to_tensor(image), {**target, "masks": torch.stack(masks) if masks else empty}


def _target(boxes: Tensor, labels: list[int]) -> dict[str, Tensor]:
    return {"boxes": boxes.float(), "labels": torch.tensor(labels, dtype=torch.int64)}
