"""Adder layers as onnxruntime's own nodes, computed by the CPU kernels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from addertrain.cli import main
from addertrain.interchange import InterchangeError, export_onnx, onnxruntime_library
from addertrain.interchange.own_operator import in_own_operators
from addertrain.nn import AdderConv2d, AdderLinear
from tests.interchange.test_export import trained_resnet

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def options() -> Any:
    try:
        library = onnxruntime_library()
    except InterchangeError as error:
        pytest.skip(str(error))
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    return options


def _run(layer: nn.Module, x: Tensor, path: Path, options: Any) -> Tensor:
    program = torch.onnx.export(
        in_own_operators(layer),
        (x,),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("N")},),
    )
    path.write_bytes(program.model_proto.SerializeToString())  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("offset_free", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_node_computes_what_its_layer_does(
    offset_free: bool, bias: bool, tmp_path: Path, options: Any
) -> None:
    settings: dict[str, Any] = {"bias": bias, "offset_free": offset_free}
    conv = AdderConv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), **settings)
    grouped = AdderConv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 2), groups=2, **settings)
    linear = AdderLinear(6, 5, **settings)
    for layer, x in (
        (conv, torch.randn(2, 3, 7, 8)),
        (grouped, torch.randn(2, 6, 7, 8)),
        (linear, torch.randn(3, 6)),
    ):
        if layer.bias is not None:
            nn.init.normal_(layer.bias)

        y = _run(layer, x, tmp_path / "layer.onnx", options)

        torch.testing.assert_close(y, layer(x), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_network_is_exported_and_agrees_with_pytorch(tmp_path: Path, options: Any) -> None:
    path = tmp_path / "network.onnx"

    difference = export_onnx(trained_resnet("adder"), path, image_shape=(3, 8, 8), operators="own")

    assert difference < 1e-4
    nodes = [node.op_type for node in onnx.load(path).graph.node if node.domain == "addertrain"]
    assert nodes == ["AdderConv2d"] * 5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("x", "words"),
    [((1, 4, 8, 8), "with as many channels"), ((1, 3, 2, 2), "at least as large as the filter")],
)
def test_a_wrong_image_is_an_error_of_the_session(
    x: tuple[int, ...], words: str, tmp_path: Path, options: Any
) -> None:
    helper, kinds = onnx.helper, onnx.TensorProto
    w = torch.randn(5, 3, 3, 3)
    node = helper.make_node(
        "AdderConv2d", ["x", "w"], ["y"], domain="addertrain", stride=[1, 1], padding=[0, 0], dilation=[1, 1],
        offset_free=0,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "layer", [helper.make_tensor_value_info("x", kinds.FLOAT, ["N", "C", "H", "W"])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, None)],
        [helper.make_tensor("w", kinds.FLOAT, w.shape, w.flatten().tolist())],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("addertrain", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    with pytest.raises(Exception, match=words):
        session.run(None, {"x": torch.zeros(x).numpy()})


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("addertrain.compiled._FOLDERS", (tmp_path,))

    with pytest.raises(InterchangeError, match=r"needs the library _C_onnxruntime.so, which was not built"):
        onnxruntime_library()


def test_own_operators_are_for_onnx_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["ckpt", "convert", str(tmp_path), str(tmp_path / "x.pt"), "--operators", "own"]) == 2

    assert "expected a name ending in .onnx for --operators own" in capsys.readouterr().err
