"""`fuse` finds what one call can stand for, whatever way it is written in, and changes no value."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from addertrain.interchange.standard import in_standard_operations
from addertrain.nn import AdderConv2d, BatchNorm2d, convert, fuse, synchronise_norms
from addertrain.nn.fusing.forward import program_for
from addertrain.nn.int8 import calibrate, in_int8
from tests.nn.fuse_zoo import FOUND, LEFT, Block, Reaches, images, step

EPS = 2.0**-24


def assert_same_step(fused: nn.Module, twin: nn.Module) -> None:
    """Output and statistics in the same bits; gradients but for rounding.

    Behind a ReLU kernels add the same terms in another order, so that two gradients may lie as far apart as
    each of them lies from the exact one: 4 leaves room for the luck of the second draw.
    """
    exact = step(copy.deepcopy(twin).double(), torch.float64)
    got, expected = step(fused), step(twin)
    assert torch.equal(got.output, expected.output)
    for name, value in expected.buffers.items():
        assert torch.equal(got.buffers[name], value), name
    assert list(got.gradients) == list(expected.gradients)
    for name, gradient in expected.gradients.items():
        rounding = (gradient - exact.gradients[name]).norm() + EPS * gradient.norm()
        assert (got.gradients[name] - gradient).norm() <= 4 * rounding, name


def assert_same_evaluation(fused: nn.Module, twin: nn.Module) -> None:
    with torch.no_grad():
        assert torch.equal(fused.eval()(images()), twin.eval()(images()))


@pytest.mark.parametrize("name", FOUND)
def test_every_way_to_write_it_is_found(name: str) -> None:
    torch.manual_seed(0)
    model, rectified, num_norms, num_ends = FOUND[name]()
    twin = copy.deepcopy(model)
    keys = list(model.state_dict())

    fusion = fuse(model, images())

    assert [layer for layer, reads in fusion.layers.items() if reads] == rectified
    assert (len(fusion.norms), len(fusion.block_ends)) == (num_norms, num_ends)
    assert list(model.state_dict()) == keys
    assert_same_step(model, twin)
    assert_same_evaluation(model, twin)


@pytest.mark.parametrize("name", FOUND)
def test_gradients_are_the_same_in_float64(name: str) -> None:
    torch.manual_seed(0)
    model = FOUND[name]()[0].double()
    twin = copy.deepcopy(model)
    fuse(model, images().double())
    got, expected = step(model, torch.float64), step(twin, torch.float64)
    for key, gradient in expected.gradients.items():
        torch.testing.assert_close(got.gradients[key], gradient, rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", [*FOUND, *LEFT])
def test_whatever_is_left_out_is_named_with_its_reason(name: str) -> None:
    model = (FOUND | LEFT)[name]()[0]
    fusion = fuse(model, images())
    norms = {each for each, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert set(fusion.layers_left) == {each for each, reads in fusion.layers.items() if not reads}
    assert set(fusion.norms_left) == norms - set(fusion.norms)
    for left in (fusion.layers_left, fusion.norms_left, fusion.block_ends_left):
        assert all(left.values())
        assert all(any(each in line for line in str(fusion).splitlines()[1:]) for each in left)


@pytest.mark.parametrize(
    ("name", "kind", "left"),
    [
        ("a norm's result read twice", "block_ends", {"bn2": "the norm's result is read more than once"}),
        ("a sum read twice", "block_ends", {"bn2": "the sum is read more than once, or is the result"}),
        ("a product", "layers", {
            "conv1": "it reads the network's input",
            "conv2": "it reads the result of mul in the network itself",
        }),
        ("shortcut", "block_ends", {}),
    ],
)  # fmt: skip
def test_reasons_say_what_stands_in_the_way(name: str, kind: str, left: dict[str, str]) -> None:
    fusion = fuse((FOUND | LEFT)[name]()[0], images())
    assert getattr(fusion, f"{kind}_left") == left


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_proved_stays_as_it_is(name: str) -> None:
    torch.manual_seed(0)
    model, reason = LEFT[name]()
    twin = copy.deepcopy(model)

    fusion = fuse(model, images())

    assert not fusion.block_ends
    assert not any(fusion.layers.values())
    assert reason in str(fusion)
    assert_same_step(model, twin)
    assert_same_evaluation(model, twin)


def test_a_branch_of_training_is_followed_in_both_modes() -> None:
    class Branches(Block):
        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            return self.relu(y + x) if self.training else torch.sigmoid(y + x)

    model = Branches()
    twin = copy.deepcopy(model)
    fusion = fuse(model, images())
    assert fusion.layers == {"conv1": False, "conv2": True}
    assert fusion.block_ends == ("bn2",)
    for _ in range(2):
        assert_same_step(model.train(), twin.train())
        assert_same_evaluation(model, twin)


def test_a_layer_that_is_called_past_its_block_is_not_behind_a_relu() -> None:
    torch.manual_seed(0)
    model = Reaches()
    twin = copy.deepcopy(model)
    fusion = fuse(model, images())
    assert fusion.layers == {"block.conv1": False, "block.conv2": False}
    assert fusion.block_ends == ("block.bn2",)
    assert_same_step(model, twin)


def test_a_relu_whose_hook_may_return_other_numbers_is_none() -> None:
    model = FOUND["modules"]()[0]
    model.relu.register_forward_hook(lambda _module, _inputs, y: y - 1.0)
    twin = copy.deepcopy(model)
    assert not any(fuse(model, images()).layers.values())
    assert_same_step(model, twin)


def _with_flag(model: nn.Module) -> None:
    model.is_last = True  # type: ignore[assignment]


def _with_another_child(model: nn.Module) -> None:
    model.relu = nn.ELU()


@pytest.mark.parametrize("change", [_with_flag, _with_another_child])
def test_an_altered_module_runs_its_own_code(change: Callable[[nn.Module], None]) -> None:
    class Flagged(Block):
        is_last = False

        def forward(self, x: Tensor) -> Tensor:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x
            return y if self.is_last else self.relu(y)

    model = Flagged()
    twin = copy.deepcopy(model)
    fuse(model, images())
    for each in (model, twin):
        change(each)
        for layer in each.modules():
            if isinstance(layer, AdderConv2d):
                layer.rectified = False
    assert_same_step(model, twin)


def test_a_part_that_is_replaced_within_a_part_takes_effect() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.block.relu(self.block.bn1(self.block.conv1(x)))
            return y

    model = Outer()
    twin = copy.deepcopy(model)
    assert fuse(model, images()).norms == ("block.bn1",)
    for each in (model, twin):
        each.block.relu = nn.Tanh()
    assert_same_step(model, twin)


@pytest.mark.parametrize("changed", ["conv1", "bn1", "relu", "bn2", "conv2"])
def test_a_forward_that_is_laid_on_an_object_is_called(changed: str) -> None:
    model = FOUND["modules"]()[0]
    twin = copy.deepcopy(model)
    fuse(model, images())
    plain = step(copy.deepcopy(model)).output
    for each in (model, twin):
        part = each.get_submodule(changed)
        part.forward = lambda x, own=part.forward: own(x) - 0.5
    got = step(model).output
    assert torch.equal(got, step(twin).output)
    assert not torch.equal(got, plain)
    assert_same_evaluation(model, twin)


@pytest.mark.parametrize("watched", ["conv1", "bn1", "relu", "bn2", "conv2"])
def test_a_hook_hears_what_it_heard_before(watched: str) -> None:
    model = FOUND["modules"]()[0]
    twin = copy.deepcopy(model)
    fuse(model, images())
    heard: dict[int, list[Tensor]] = {0: [], 1: []}
    for number, each in enumerate((model, twin)):
        each.get_submodule(watched).register_forward_hook(
            lambda _module, _inputs, y, number=number: heard[number].append(y.detach().clone())
        )
    assert torch.equal(step(model).output, step(twin).output)
    assert len(heard[0]) == len(heard[1]) >= 1
    assert all(map(torch.equal, heard[0], heard[1]))


def test_copies_and_pickles_are_fused_networks_of_their_own() -> None:
    model = FOUND["modules"]()[0]
    twin = copy.deepcopy(model)
    fuse(model, images())
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    for other in (copy.deepcopy(model), torch.load(stream, weights_only=False)):
        assert program_for(other, (images(),)) is not None
        other.bn1.weight.data.fill_(3.0)
        assert not torch.equal(other(images()), model(images()))
    twin.load_state_dict(model.state_dict())
    model.load_state_dict(twin.state_dict())
    assert_same_step(model, twin)


def test_a_shallow_copy_runs_on_its_own_parts() -> None:
    """As torch.nn.DataParallel's replicas do."""
    model = FOUND["modules"]()[0]
    fuse(model, images())
    other = copy.copy(model)
    other._modules = dict(model._modules) | {"bn1": copy.deepcopy(model.bn1)}
    other.bn1.weight.data.fill_(3.0)
    assert isinstance(other, Block)
    assert type(other).__name__ == "Modules"
    assert not torch.equal(other(images()), model(images()))


def test_fusing_twice_is_fusing_once() -> None:
    model = FOUND["modules"]()[0]
    twin = copy.deepcopy(model)
    assert fuse(model, images()) == fuse(model, images())
    assert_same_step(model, twin)


def test_a_fused_network_compiles_and_is_traced() -> None:
    model = FOUND["modules"]()[0]
    twin = copy.deepcopy(model)
    fuse(model, images())
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    traced = torch.fx.symbolic_trace(copy.deepcopy(model))
    expected = twin(images())
    assert torch.equal(compiled(images()), expected)
    assert torch.equal(traced(images()), expected)
    assert {"conv1", "bn1", "relu"} <= {node.target for node in traced.graph.nodes}


def test_ranks_that_share_statistics_and_bytes_serve_as_before() -> None:
    model = FOUND["modules"]()[0]
    twin = copy.deepcopy(model)
    fuse(model, images())
    for each in (model, twin):
        synchronise_norms(each)
    assert_same_step(model, twin)
    model.eval(), twin.eval()
    grids = calibrate(twin, [images()])
    with torch.no_grad(), in_int8(model, grids), in_int8(twin, grids):
        assert torch.equal(model(images()), twin(images()))


def test_torchs_norms_become_ours_where_they_are_fused() -> None:
    model = nn.Sequential(
        AdderConv2d(4, 4, 3, padding=1, offset_free=True), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)
    )
    fuse(model, images())
    assert type(model[1]) is BatchNorm2d
    assert type(model[3]) is nn.BatchNorm2d


def test_a_network_without_anything_to_fuse_is_left_alone() -> None:
    model = nn.Sequential(AdderConv2d(4, 4, 3), nn.Sigmoid(), nn.Flatten())
    fusion = fuse(model, images())
    assert str(fusion).splitlines() == [
        "fuse: 0 of 1 adder layer read a ReLU, 0 norms, 0 block ends",
        "adder layers that are not known to read a ReLU: 1 (it reads the network's input): 0",
    ]
    assert type(model) is nn.Sequential


def test_an_error_of_the_fused_code_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a network that is already fused as in one that is not."""

    def fail(*_: Any, **__: Any) -> Any:
        raise ArithmeticError("as a kernel may")

    for is_fused in (False, True):
        model = nn.Sequential(FOUND["two blocks"]()[0], nn.BatchNorm2d(4), nn.ReLU())
        if is_fused:
            fuse(model, images())
        twin = copy.deepcopy(model)
        classes = [type(module) for module in model.modules()]
        with monkeypatch.context() as patch:
            patch.setattr("addertrain.nn.fusing.chains.adder_norm_residual", fail)
            with pytest.raises(ArithmeticError, match="as a kernel may"):
                fuse(model, images())
        assert [type(module) for module in model.modules()] == classes
        assert (program_for(model[0][0], (images(),)) is not None) == is_fused
        assert any(layer.rectified for layer in model.modules() if isinstance(layer, AdderConv2d)) == is_fused
        assert_same_step(model, twin)
        assert_same_evaluation(model, twin)


def test_an_example_that_the_network_does_not_take_is_named() -> None:
    model = FOUND["modules"]()[0]
    twin = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"got \(2, 3, 8, 8\), on which it raised .*; pass a batch") as error:
        fuse(model, images(3))
    assert "\n" not in str(error.value)
    assert_same_step(model, twin)
    with pytest.raises(ValueError, match="expected an example that the network takes"):
        convert(nn.Sequential(nn.Conv2d(4, 4, 3)), example=images(3))


@pytest.mark.parametrize("name", FOUND)
def test_on_the_meta_device_the_same_is_found(name: str) -> None:
    """A recipe's own network is built there first, to check its shapes."""
    model = FOUND[name]()[0]
    with torch.device("meta"):
        twin = FOUND[name]()[0]
    assert fuse(twin, images().to("meta")) == fuse(model, images())


def test_a_result_that_differs_is_undone() -> None:
    class Catches(Block):
        def forward(self, x: Tensor) -> Tensor:
            try:
                is_finite = bool(x.isfinite().all())
            except Exception:  # whatever stops the code from being followed
                is_finite = False
            y = self.relu(self.bn1(self.conv1(x)))
            return self.conv2(y) if is_finite else -y

    model = Catches()
    twin = copy.deepcopy(model)
    with pytest.raises(RuntimeError, match="the network was left unchanged"):
        fuse(model, images())
    assert type(model) is Catches
    assert not model.conv2.rectified
    assert_same_step(model, twin)


@pytest.mark.parametrize(
    ("network", "line"),
    [
        (resnet18, "fuse: 19 of 19 adder layers read a ReLU, 20 norms, 8 block ends"),
        pytest.param(
            resnet50,
            "fuse: 52 of 52 adder layers read a ReLU, 53 norms, 16 block ends",
            marks=pytest.mark.long,
        ),
    ],
)
def test_torchvisions_networks_are_fused_whole(network: Callable[..., nn.Module], line: str) -> None:
    torch.manual_seed(0)
    plain = convert(network(num_classes=10), keep=("conv1", "fc"))
    fused = copy.deepcopy(plain)
    x = images(3, 64)
    assert str(fuse(fused, x)) == line
    assert_same_step(fused, plain)


def test_convert_fuses_for_an_example() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    converted: Any = convert(model, example=images())
    assert str(converted.conversion).splitlines()[-2:] == [
        "fuse: 1 of 2 adder layers read a ReLU, 1 norm, 0 block ends",
        "adder layers that are not known to read a ReLU: 1 (it reads the network's input): 0",
    ]
    assert repr(converted[3]).endswith("rectified=True)")
    assert convert(model).conversion.fusion is None


def test_a_fused_network_is_written_in_standard_operations() -> None:
    model = FOUND["modules"]()[0].eval()
    fuse(model, images())
    written = in_standard_operations(model)
    with torch.no_grad():
        torch.testing.assert_close(written(images()), model(images()), rtol=1e-5, atol=1e-5)
