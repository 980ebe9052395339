"""The authors' checkpoints, in their exact key layout: the same logits here as by their equations."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from addertrain.cli import main
from addertrain.interchange import (
    InterchangeError,
    export_official,
    import_official,
    load_exported,
    load_official,
)
from addertrain.models import build_model
from addertrain.nn import AdderConv2d
from tests.source_tree import ROOT

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def official_names(depths: tuple[int, ...], *, convs: int, first_stage_shortcut: bool) -> Iterator[str]:
    """Every name of their resnet20.py and resnet50.py, in the order of their modules."""
    yield "conv1.weight"
    yield from (f"bn1.{part}" for part in NORM)
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            for number in range(1, convs + 1):
                yield f"{prefix}.conv{number}.adder"
                yield from (f"{prefix}.bn{number}.{part}" for part in NORM)
            if block == 0 and (stage > 1 or first_stage_shortcut):
                yield f"{prefix}.downsample.0.adder"
                yield from (f"{prefix}.downsample.1.{part}" for part in NORM)
    yield "fc.weight"
    if convs == 3:
        yield "fc.bias"
    yield from (f"bn2.{part}" for part in NORM)


def randomised(model: nn.Module) -> nn.Module:
    """Statistics and scales as a trained network could have them: none at its start."""
    x = torch.randn(4, 3, 32, 32)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    model.train()(x)
    return model.eval()


def theirs(name: str, num_classes: int = 7) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network by their equations (Y of Eq. 2, a bias in ResNet-50's last layer), and its file's content."""
    model = build_model(name, kind="adder", num_classes=num_classes)
    for module in model.modules():
        if isinstance(module, AdderConv2d):
            module.offset_free = False
    if name == "resnet50":
        bias = model.get_submodule("fc")
        bias.register_parameter("bias", nn.Parameter(torch.randn(num_classes)))
    randomised(model)
    layers = {n for n, module in model.named_modules() if isinstance(module, AdderConv2d)}
    state = {
        (key.replace("weight", "adder") if key.rpartition(".")[0] in layers else key): tensor.clone()
        for key, tensor in model.state_dict().items()
    }
    depths, convs = ((3, 3, 3), 2) if name == "resnet20" else ((3, 4, 6, 3), 3)
    names = list(official_names(depths, convs=convs, first_stage_shortcut=convs == 3))
    assert set(names) == set(state)
    return model, {f"module.{key}": state[key] for key in names}


@pytest.mark.parametrize("name", ["resnet20", "resnet50"])
def test_the_imported_network_gives_their_logits(name: str, tmp_path: Path) -> None:
    model, state = theirs(name)
    before = copy.deepcopy(state)
    path = tmp_path / f"{name}-AdderNet.pth"
    torch.save(state, path)
    x = torch.randn(2, 3, 32, 32)
    imported = load_official(path, name, num_classes=7)

    with torch.no_grad():
        torch.testing.assert_close(imported(x), model(x), rtol=1e-3, atol=1e-3)
    assert all(torch.equal(state[key], before[key]) for key in state)


def test_the_command_line_imports_into_a_file_with_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, state = theirs("resnet20", num_classes=10)
    source, target = tmp_path / "ResNet20-AdderNet.pth", tmp_path / "resnet20.safetensors"
    torch.save(state, source)
    recipe = ROOT / "recipes" / "cifar10" / "resnet20.yaml"

    assert main(["ckpt", "convert", str(source), str(target), "--recipe", str(recipe)]) == 0
    model, loaded = load_exported(target)
    assert loaded.name == "cifar10-resnet20"
    assert torch.equal(model.get_parameter("layer1.0.conv1.weight"), state["module.layer1.0.conv1.adder"])
    back = tmp_path / "again.pt"
    words = ["ckpt", "convert", str(source), str(back), "--recipe", str(recipe), "--layout", "authors"]
    assert main(words) == 0
    again = torch.load(back, weights_only=True)
    assert again.keys() == state.keys()
    for key, tensor in state.items():
        # Σ|F| is added to the means and taken off again.
        torch.testing.assert_close(again[key], tensor, rtol=0, atol=1e-4 if "mean" in key else 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.safetensors"], "name its recipe with --recipe"),
        (["x.txt"], r"ending in \.safetensors, \.pt, \.onnx, got"),
        (["x.pt", "--recalibrate", "-1"], "a whole number of 0 or more, got '-1'"),
        (["x.onnx", "--layout", "authors"], r"ending in \.pt for --layout authors, got"),
        (
            ["x.pt", "--recipe", str(ROOT / "recipes/mnist/lenet5bn.yaml")],
            "a file that torch.save wrote, got",
        ),
    ],
)
def test_what_cannot_be_converted_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    source = tmp_path / "theirs.pth"
    source.write_bytes(b"")

    assert main(["ckpt", "convert", str(source), *words]) in (1, 2)
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.count("\n") == 1


def test_a_file_is_not_converted_onto_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "theirs.pt"
    source.write_bytes(b"weights")
    (tmp_path / "link.pt").symlink_to(source)

    for target in (source, tmp_path / "link.pt"):
        words = ["ckpt", "convert", str(source), str(target), "--recipe", "recipes/cifar10/resnet20.yaml"]
        assert main(words) == 2
        assert "as FROM and TO; choose another TO" in capsys.readouterr().err

    assert source.read_bytes() == b"weights"


def test_networks_that_the_authors_do_not_have_are_refused() -> None:
    with pytest.raises(InterchangeError, match="expected resnet20 or resnet50 of adder layers"):
        export_official(build_model("resnet32", kind="adder", num_classes=10), "resnet32")
    with pytest.raises(InterchangeError, match="of adder layers for the authors' layout"):
        export_official(build_model("resnet20", kind="conv", num_classes=10), "resnet20")


def test_what_is_written_for_the_authors_computes_the_same_there() -> None:
    _, state = theirs("resnet50")
    model = build_model("resnet50", kind="adder", num_classes=7)
    model.load_state_dict(import_official(state))

    written = export_official(model, "resnet50")

    assert written.keys() == state.keys()
    again = import_official(written)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(again[key], tensor, rtol=0, atol=1e-3 if "mean" in key else 0)


def test_names_without_a_prefix_and_old_files_are_taken_too() -> None:
    _, state = theirs("resnet20")
    plain = {key.removeprefix("module."): value for key, value in state.items() if "num_batches" not in key}
    found, expected = import_official(plain), import_official(state)

    assert found.keys() == expected.keys()
    for key in expected:
        if "num_batches" not in key:
            assert torch.equal(found[key], expected[key])


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "addernet"
    torch.save(nn.Conv2d(1, 1, 1), path)
    with pytest.raises(
        InterchangeError, match=r"expected a state_dict, got a pickled object, .*state_dict\(\)"
    ):
        load_official(path, "resnet20", num_classes=10)


def test_other_files_and_networks_are_refused_in_one_line(tmp_path: Path) -> None:
    _, state = theirs("resnet20")
    path = tmp_path / "file.pth"
    for content, words in (
        ({"state_dict": state}, "save the state_dict itself"),
        (build_model("resnet20", kind="adder", num_classes=7).state_dict(), "need no --recipe"),
        (
            {key: value for key, value in state.items() if "layer1.0.bn2" not in key},
            "layer1.0.bn2.running_mean",
        ),
        ({**state, "module.layer9.adder": torch.zeros(1, 1, 1, 1)}, "expected a batch norm layer9"),
    ):
        torch.save(content, path)
        with pytest.raises(InterchangeError, match=words) as caught:
            load_official(path, "resnet20", num_classes=7)
        assert "\n" not in str(caught.value)
    torch.save(state, path)
    with pytest.raises(InterchangeError, match=r"resnet20: expected \(10, 64, 1, 1\) for fc.weight"):
        load_official(path, "resnet20", num_classes=10)
    with pytest.raises(InterchangeError, match=r"resnet32: expected layer1.3.conv1.weight in the checkpoint"):
        load_official(path, "resnet32", num_classes=7)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(InterchangeError, match="expected"):
        load_official(path, "resnet20", num_classes=10)
    with pytest.raises(InterchangeError, match="expected a checkpoint file of the authors' code, got none"):
        load_official(tmp_path / "nowhere", "resnet20", num_classes=10)
