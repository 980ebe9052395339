"""Export: what is written loads elsewhere and computes the same."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from addertrain.checkpoint.files import read_tensors
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.cli import main
from addertrain.interchange import (
    InterchangeError,
    Trained,
    export_onnx,
    export_safetensors,
    load_exported,
    trained_network,
)
from addertrain.interchange.standard import in_standard_operations
from addertrain.models import build_model
from addertrain.models.blocks import BasicBlock, Bottleneck
from addertrain.models.resnet import ResNet
from addertrain.nn import AdderConv2d, AdderLinear, set_variant
from addertrain.ops.variants import Variant
from addertrain.recipe import load_recipe
from addertrain.train.run import evaluate, fit
from tests.source_tree import ROOT
from tests.train.small_runs import assert_same_bits, short_recipe

RESNET20 = ROOT / "recipes" / "cifar10" / "resnet20.yaml"


def trained_resnet(
    kind: str, block: type[BasicBlock] | type[Bottleneck] = BasicBlock, depths: tuple[int, ...] = (1, 1)
) -> Trained:
    """A small network whose statistics and scales are not those of its start."""
    model = ResNet(block, depths, (8, 16)[: len(depths)], num_classes=5, stem="cifar", kind=kind)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    model(torch.randn(8, 3, 16, 16))
    return Trained(model.eval(), load_recipe(RESNET20), 5, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


@pytest.mark.parametrize("kind", ["adder", "conv", "binary"])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_standard_operations_give_the_same_logits(
    kind: str, block: type[BasicBlock] | type[Bottleneck]
) -> None:
    model = trained_resnet(kind, block).model
    x = torch.randn(2, 3, 16, 16)

    torch.testing.assert_close(in_standard_operations(model)(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("offset_free", "rectified"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("filters", "groups"), [(4, 1), (6, 3)])
def test_standard_layers_match_with_every_geometry(
    offset_free: bool, rectified: bool, bias: bool, filters: int, groups: int
) -> None:
    settings = {"offset_free": offset_free, "bias": bias}
    conv = AdderConv2d(
        3, filters, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), rectified=rectified,
        groups=groups, **settings,
    )  # fmt: skip
    linear = AdderLinear(6, 5, **settings)
    for layer in (conv, linear):
        if layer.bias is not None:
            nn.init.normal_(layer.bias)
    x, z = torch.randn(2, 3, 7, 8), torch.randn(2, 3, 6)
    x = x.relu() if rectified else x

    torch.testing.assert_close(in_standard_operations(conv)(x), conv(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_standard_operations(linear)(z), linear(z), rtol=1e-5, atol=1e-5)


def test_a_power_other_than_one_is_refused() -> None:
    model = build_model("lenet5bn", kind="adder", num_classes=10)
    set_variant(model, Variant(p=1.5))
    with pytest.raises(InterchangeError, match=r"expected adder layers of power 1, got 1.5 in conv1"):
        in_standard_operations(model)


@pytest.mark.parametrize("kind", ["adder", pytest.param("binary", marks=pytest.mark.long)])
def test_onnxruntime_agrees_with_pytorch(kind: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "network.onnx"
    difference = export_onnx(trained_resnet(kind, depths=(1,)), path, image_shape=(3, 8, 8))

    assert difference < 1e-3
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert "name: cifar10-resnet20" in next(p.value for p in model.metadata_props if p.key == "recipe")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    # Two passes over the largest intermediate, a minimum and its sum, where there were four.
    assert not {"Abs", "Gather"} & {node.op_type for node in model.graph.node}


def test_an_exported_file_holds_its_recipe_and_loads_again(tmp_path: Path) -> None:
    recipe = load_recipe(RESNET20)
    model = build_model("resnet20", kind="adder", num_classes=10).eval()
    path = tmp_path / "network.safetensors"
    export_safetensors(Trained(model, recipe, 10, (0.5,) * 3, (0.2,) * 3), path)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["recipe"].startswith("name: cifar10-resnet20")
        assert file.metadata()["mean"] == "0.5 0.5 0.5"
    loaded, loaded_recipe = load_exported(path)

    assert loaded_recipe == recipe
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InterchangeError, match="expected format 'addertrain network 1'"):
        load_exported(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InterchangeError, match="expected a safetensors file"):
        load_exported(path)


def test_a_run_is_exported_as_it_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = tmp_path / "run", tmp_path / "digits.safetensors"
    fit(short_recipe("--schedule.epochs=1"), run)
    capsys.readouterr()

    assert main(["ckpt", "convert", str(run), str(file)]) == 0
    assert "top-1" not in capsys.readouterr().err
    trained = trained_network(run)
    loaded, recipe = load_exported(file)
    assert recipe == trained.recipe
    images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded(_normalised(images, trained)), trained.model(_normalised(images, trained)))
    assert _top1(trained) == pytest.approx(evaluate(run).top1)
    assert main(["ckpt", "convert", str(run), str(tmp_path / "none" / "digits.pt")]) == 1
    assert "expected an existing folder" in capsys.readouterr().err
    assert main(["ckpt", "convert", str(run), str(tmp_path / "digits.pt")]) == 0
    state = torch.load(tmp_path / "digits.pt", weights_only=True)
    assert_same_bits(state, trained.model.state_dict())
    assert main(["ckpt", "convert", str(run), str(tmp_path / "raw.pt"), "--recalibrate", "0"]) == 0
    raw = torch.load(tmp_path / "raw.pt", weights_only=True)
    assert_same_bits(raw, read_tensors(locate_checkpoint(run, print), "model"))
    means = [name for name in raw if name.endswith("running_mean")]
    assert not any(torch.equal(raw[name], state[name]) for name in means)


def _normalised(images: Tensor, trained: Trained) -> Tensor:
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (trained.mean, trained.std))
    return (images / 255 - mean) / std


@torch.no_grad()
def _top1(trained: Trained) -> float:
    from addertrain.data import ImageArrays, load_data

    test = load_data(trained.recipe.data).test
    assert isinstance(test, ImageArrays)
    logits = trained.model(_normalised(test.images_nchw, trained))
    return 100 * float((logits.argmax(1) == test.labels).float().mean())
