"""Which layers are tried, on how small a batch, and what is remembered of it."""

import json
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor, nn

from addertrain.bench.proof import main
from addertrain.models import build_model
from addertrain.nn import AdderConv2d
from addertrain.ops import reference
from addertrain.proof import CompiledOperators, ProofStore, ProvenLayer, layers_of, prove
from addertrain.proof import operands as operands_of
from addertrain.proof.operands import counts
from addertrain.proof.reference_operators import _REFERENCES, reference_operators
from tests.ops.implementations import COMPILED, Implementation, name_of

CPU = torch.device("cpu")


def _layers(
    name: str, size: int, device_type: str = "cpu", images: int = 128
) -> dict[ProvenLayer, list[str]]:
    with torch.device("meta"):
        model = build_model(name, kind="adder", num_classes=10)
    chw = (1 if name == "lenet5bn" else 3, size, size)
    return layers_of(model, chw, images=images, autocast=None, channels_last=True, device_type=device_type)


@pytest.mark.parametrize("implementation", COMPILED, ids=name_of)
def test_every_instruction_set_is_right_on_a_whole_network(implementation: Implementation) -> None:
    with implementation.use():
        outcome = prove(_layers("resnet20", 32), CompiledOperators(CPU), with_int8=True, with_powers=True)

    assert not outcome.failures, "\n".join(map(str, outcome.failures))
    assert outcome.num_proven == outcome.num_layers == 7


class _InGroups(nn.Sequential):
    def __init__(self) -> None:
        layers = (
            AdderConv2d(72, 72, 3, 2, 1, groups=72, offset_free=True, rectified=True),
            AdderConv2d(72, 48, 3, padding=1, groups=6, offset_free=True),
            AdderConv2d(48, 40, 1, groups=2),
        )
        super().__init__(*layers)


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels-last", "NCHW"])
def test_layers_in_groups_are_proven(channels_last: bool) -> None:
    def proven(dtype: torch.dtype | None) -> dict[ProvenLayer, list[str]]:
        return layers_of(
            _InGroups(), (72, 9, 10), images=4, autocast=dtype, channels_last=channels_last, device_type="cpu"
        )

    layers = proven(None)
    outcome = prove(layers, CompiledOperators(CPU), with_int8=True, with_powers=True)

    assert [layer.groups for layer in layers] == [72, 6, 2]
    assert not outcome.failures, "\n".join(map(str, outcome.failures))
    assert not prove(proven(torch.bfloat16), CompiledOperators(CPU)).failures


def test_a_layer_whose_groups_are_mixed_up_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    operators = CompiledOperators(CPU)
    layers = layers_of(
        _InGroups(), (72, 9, 10), images=4, autocast=None, channels_last=True, device_type="cpu"
    )
    whole = CompiledOperators.forward

    def rolled(self: CompiledOperators, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor:
        return whole(self, layer, x.roll(layer.C // layer.groups, 1), w)

    monkeypatch.setattr(CompiledOperators, "forward", rolled)

    assert len(prove(layers, operators).failures) == 3


@pytest.mark.parametrize("kernel", ["power", "power_gradients"])
def test_a_wrong_power_is_noticed(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    layers, right = _layers("resnet8", 32), getattr(CompiledOperators, kernel)

    def another(self: CompiledOperators, *arguments: object) -> object:
        return right(self, *arguments[:-1], 1.401)

    monkeypatch.setattr(CompiledOperators, kernel, another)

    assert not prove(layers, CompiledOperators(CPU)).failures
    assert len(prove(layers, CompiledOperators(CPU), with_powers=True).failures) == len(layers)


def test_a_wrong_norm_leaves_no_layer_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where several layers have norms alike, which are tried once as long as they are right."""
    model = nn.Sequential(*(AdderConv2d(channels, 6, 3, padding=1, offset_free=True) for channels in (4, 6)))
    layers = layers_of(model, (4, 7, 8), images=4, autocast=None, channels_last=True, device_type="cpu")
    right, store = CompiledOperators.norm, ProofStore({}, tmp_path)

    def shifted(self: CompiledOperators, *arguments: object) -> tuple[Tensor, ...]:
        y, *statistics = right(self, *arguments)  # type: ignore[arg-type]
        return y + 0.01, *statistics

    monkeypatch.setattr(CompiledOperators, "norm", shifted)
    outcome = prove(layers, CompiledOperators(CPU), store=store)

    assert len(layers) == len({failure.layer for failure in outcome.failures}) == 2
    assert not any(store.holds(layer, "float") for layer in layers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_and_nchw_on_a_cpu(dtype: torch.dtype) -> None:
    with torch.device("meta"):
        model = build_model("lenet5bn", kind="adder", num_classes=10)
    layers = layers_of(
        model, (1, 32, 32), images=8, autocast=dtype, channels_last=False, device_type="cpu"
    )  # fmt: skip

    outcome = prove(layers, CompiledOperators(CPU))

    assert {layer.dtype for layer in layers} == {dtype}
    assert not outcome.failures, "\n".join(map(str, outcome.failures))


def test_alike_layers_are_tried_once_and_all_named() -> None:
    layers = _layers("resnet50", 224)

    assert len(layers) == 22
    assert sum(map(len, layers.values())) == 52
    assert max(map(len, layers.values())) == 6


def _blocks(layer: ProvenLayer, images: int) -> int:
    """Of the forward, by kernels/csrc/cuda/tile_policy.h's widest tile."""
    p, q = layer.output
    return -(-images * p * q // 128) * -(-layer.O // 128)


def test_a_gpu_splits_k_on_the_small_batch_only_where_it_does_on_the_real_one() -> None:
    """From 264 blocks on it does not (kernels/csrc/cuda/plan.h)."""
    for images in (1, 16, 128):
        for layer, (name, *_) in _layers("resnet50", 224, "cuda", images).items():
            stage = int(name.split(".")[0].removeprefix("layer"))
            rows = images * (112 // 2**stage) ** 2  # of a stage; its first layers may have four times as many
            is_split = -(-rows // 128) * -(-layer.O // 128) < 264
            if not is_split:
                assert _blocks(layer, layer.forward_images) >= 264, layer
            assert layer.H <= 11
            assert layer.forward_images <= images * 56


def test_operands_repeat_what_the_answers_count() -> None:
    """A layer of 70 channels and 80 filters answers as its 31 and 37 different ones do, counted."""
    layer = next(one for one in _layers("resnet18", 64) if one.C == 128 and one.O == 256 and one.R == 3)
    given = operands_of.operands(layer, 5, CPU)

    whole = reference.adder2d(given.whole_x.double(), given.whole_w.double(), *layer.sizes, True)

    per_channel = counts(given.channels).view(1, -1, 1, 1)
    few = reference.adder2d(given.x * per_channel, given.w * per_channel, *layer.sizes, True)
    torch.testing.assert_close(given.of_response(few), whole)
    assert given.whole_x.is_contiguous(memory_format=torch.channels_last)
    assert len(given.whole_x) == 5


def test_what_is_proven_is_not_tried_again(tmp_path: Path) -> None:
    layers, environment = _layers("lenet5bn", 32), {"library": "abc", "torch": "2"}

    first = prove(layers, CompiledOperators(CPU), store=ProofStore(environment, tmp_path))
    again = prove(layers, CompiledOperators(CPU), store=ProofStore(environment, tmp_path))
    with_bytes = prove(
        layers, CompiledOperators(CPU), store=ProofStore(environment, tmp_path), with_int8=True
    )
    other = prove(layers, CompiledOperators(CPU), store=ProofStore({**environment, "library": "d"}, tmp_path))

    assert [one.num_proven for one in (first, again, with_bytes, other)] == [5, 0, 5, 5]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "content", ["", "{", '{"environment": {}}', '{"environment": {"torch": "2"}, "proven": 3}']
)
def test_a_damaged_memory_proves_anew(tmp_path: Path, content: str) -> None:
    environment = {"torch": "2"}
    store = ProofStore(environment, tmp_path)
    assert store.path is not None
    store.path.write_text(content, encoding="utf-8")

    layers = _layers("lenet5bn", 32)
    outcome = prove(layers, CompiledOperators(CPU), store=ProofStore(environment, tmp_path))

    assert outcome.num_proven == 5
    assert len(json.loads(store.path.read_text())["proven"]) == 5


def test_a_memory_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ProofStore({"torch": "2"}, tmp_path / "file" / "below")

    outcome = prove(_layers("lenet5bn", 32), CompiledOperators(CPU), store=store)

    assert outcome.num_proven == 5
    assert not outcome.failures


def test_a_user_without_a_home_remembers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run under a number that no file of users knows, and without HOME."""
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)

    def nobody(number: int) -> NoReturn:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    store = ProofStore({"torch": "2"})

    outcome = prove(_layers("lenet5bn", 32), CompiledOperators(CPU), store=store)

    assert (outcome.num_proven, store.path, list(tmp_path.iterdir())) == (5, None, [])


def test_the_reference_serves_in_the_place_of_compiled_kernels_and_no_longer() -> None:
    layer = next(iter(_layers("lenet5bn", 32)))
    given = operands_of.operands(layer, 2, CPU)
    expected = reference.adder2d(given.x, given.w, *layer.sizes, True)
    operators = CompiledOperators(CPU)
    compiled = operators.forward(layer, given.x, given.w)

    with reference_operators():
        assert torch.equal(operators.forward(layer, given.x, given.w), expected)
        assert not prove({layer: ["conv1"]}, operators, with_int8=True).failures

    assert torch.equal(operators.forward(layer, given.x, given.w), compiled)


def test_every_operator_with_a_kernel_of_ours_has_a_reference() -> None:
    """Otherwise train.kernels: reference would run the kernel."""
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("addertrain::")]

    with_kernels = {
        name.removeprefix("addertrain::")
        for name in names
        if any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in ("CPU", "CUDA"))
    }

    assert with_kernels == _REFERENCES.keys()


def test_the_command_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "proof.json"

    assert main(["lenet5bn", "--dtype", "float32", "bfloat16", "--json", str(file)]) == 0

    found = json.loads(file.read_text())
    assert [one["dtype"] for one in found["proofs"]] == ["float32", "bfloat16"]
    assert [one["failures"] for one in found["proofs"]] == [[], []]
    assert found["environment"]["library"]
    assert "lenet5bn  bfloat16  5 layers in " in capsys.readouterr().out
