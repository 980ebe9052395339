"""Every shipped recipe: its network is built and learns two steps, and its schedule is the closed form."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from addertrain.data import Batch, ImageArrays, ImageData
from addertrain.optim import build_schedule
from addertrain.recipe import Recipe, load_recipe
from addertrain.train.network import build_classifier
from tests.source_tree import ROOT

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
NUM_CLASSES = {"cifar100": 100, "imagenet": 1000}
LARGEST_SIZE = 64  # of images by default: the networks are whole, ImageNet's images are not
BATCH_SIZE = 2
KINDS = ("", "_conv", "_binary")  # ends of recipes' names


def recipe_name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def synthetic(recipe: Recipe, size: int) -> ImageData:
    """Noise in the shape of the recipe's images."""
    channels = 1 if recipe.data.name in ("digits", "mnist") else 3
    num_classes = NUM_CLASSES.get(recipe.data.name, 10)
    images = torch.randint(0, 256, (BATCH_SIZE, channels, size, size), dtype=torch.uint8)
    arrays = ImageArrays(
        images.contiguous(memory_format=torch.channels_last), torch.randint(0, num_classes, (BATCH_SIZE,))
    )
    half = (0.5,) * channels
    return ImageData(train=arrays, test=arrays, mean=half, std=half, num_classes=num_classes)


def image_size(recipe: Recipe) -> int:
    return recipe.data.image_size if recipe.data.loader != "memory" else 32


def two_steps(recipe: Recipe, size: int) -> tuple[nn.Module, list[float]]:
    """The network after two updates, and the losses before them, without a teacher that is trained first."""
    data = synthetic(recipe, size)
    module = build_classifier(recipe, data, steps_per_epoch=10, to_train=recipe.distill.teacher != "frozen")
    module.on_train_start()
    optimizer = module.configure_optimizers()["optimizer"]
    assert isinstance(data.train, ImageArrays)
    batch = Batch(data.train.images_nchw, data.train.labels, torch.arange(BATCH_SIZE))
    losses = []
    for step in range(2):
        loss = module.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return module.model, losses


@pytest.mark.parametrize("path", RECIPES, ids=recipe_name)
def test_the_network_takes_two_steps(path: Path) -> None:
    recipe = load_recipe(path)
    model, losses = two_steps(recipe, min(image_size(recipe), LARGEST_SIZE))

    assert all(math.isfinite(loss) for loss in losses)
    assert losses[0] != losses[1]
    # Not whether it moved: a small gradient of a norm's scale may be lost beside 1.0.
    untrained = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untrained, untrained
    assert all(param.isfinite().all() for param in model.parameters())


@pytest.mark.long
@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.parent.name == "imagenet"], ids=recipe_name
)
def test_imagenet_networks_take_two_steps_at_full_size(path: Path) -> None:
    recipe = load_recipe(path)

    assert all(math.isfinite(loss) for loss in two_steps(recipe, image_size(recipe))[1])


def closed_form(recipe: Recipe, steps_per_epoch: int) -> Iterator[tuple[int, float]]:
    """Some steps and the rate they are made with: γ/2 (1 + cos πt) after a linear warm-up of whole epochs."""
    num_steps = recipe.schedule.epochs * steps_per_epoch
    warmup = round(recipe.schedule.warmup_epochs * steps_per_epoch)
    for step in (warmup // 2, warmup):
        yield step, recipe.optim.lr * (step + 1) / (warmup + 1)
    for share in (0.25, 0.5, 0.9, 1.0):
        step = warmup + round(share * (num_steps - warmup))
        progress = (step - warmup) / (num_steps - warmup)
        yield step, recipe.optim.lr * 0.5 * (1 + math.cos(math.pi * progress))


@pytest.mark.parametrize("path", RECIPES, ids=recipe_name)
def test_the_rate_follows_the_closed_form(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.schedule.name == "cosine"
    steps_per_epoch = 7
    schedule = build_schedule(recipe.schedule, steps_per_epoch=steps_per_epoch)
    num_steps = recipe.schedule.epochs * steps_per_epoch
    for step, rate in closed_form(recipe, steps_per_epoch):
        assert recipe.optim.lr * schedule(step, num_steps) == pytest.approx(rate, abs=1e-12)
    assert schedule(num_steps, num_steps) == 0


def test_every_published_row_has_a_recipe() -> None:
    small = {f"{model}{kind}" for model in ("vgg_small", "resnet20", "resnet32") for kind in KINDS}
    large = {f"{model}{kind}" for model in ("resnet18", "resnet50") for kind in KINDS}
    names = {recipe_name(path) for path in RECIPES}

    assert {f"{data}/{row}" for data in ("cifar10", "cifar100") for row in small} <= names
    assert {f"imagenet/{row}" for row in large} <= names
    assert {f"mnist/lenet5bn{kind}" for kind in KINDS} <= names


def test_a_frozen_teacher_is_the_run_of_another_recipe_for_the_same_data() -> None:
    recipes = [load_recipe(path) for path in RECIPES]
    students = [each for each in recipes if each.distill.teacher == "frozen"]
    data_of_run = {f"runs/{each.name}": each.data.name for each in recipes}

    assert students
    assert all(data_of_run[str(each.distill.checkpoint)] == each.data.name for each in students)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_imagenet_recipes_are_the_papers(name: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / "imagenet" / f"{name}.yaml")

    assert (recipe.schedule.name, recipe.schedule.epochs, recipe.schedule.warmup_epochs) == ("cosine", 150, 0)
    assert (recipe.optim.lr, recipe.optim.momentum, recipe.optim.nesterov) == (0.1, 0.9, True)
    assert (recipe.optim.weight_decay, recipe.optim.eta, recipe.data.global_batch_size) == (1e-4, 0.2, 256)
    assert (recipe.model.name, recipe.model.kind, recipe.data.image_size) == (name, "adder", 224)
