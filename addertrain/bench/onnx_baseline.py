"""The convolutional baseline in 8 bits through onnxruntime, by static quantisation."""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

_CALIBRATION_BATCHES = 4


def int8_session(network: nn.Module, images: Tensor, *, threads: int) -> Callable[[Tensor], object] | str:
    """A function that runs the network in 8 bits on a batch of any size, or the line that says what is
    missing. Activations are quantised per tensor and filters per channel; ranges come from random images,
    which is enough for speed.
    """
    try:
        onnxruntime = importlib.import_module("onnxruntime")
        quantization = importlib.import_module("onnxruntime.quantization")
        shapes = importlib.import_module("onnxruntime.quantization.shape_inference")
        importlib.import_module("onnxscript")
    except ImportError as error:
        needs = f"it needs onnx, onnxscript and onnxruntime ({error})"
        return f"not measured: {needs}; pip install 'addertrain[onnx]'"
    shape = tuple(images.shape[1:])
    batches = [{"images": torch.randn(2, *shape).numpy()} for _ in range(_CALIBRATION_BATCHES)]
    with TemporaryDirectory() as folder, _quiet():
        written, prepared, quantised = (
            Path(folder) / f"{name}.onnx" for name in ("float", "prepared", "int8")
        )
        program = torch.onnx.export(
            network,
            (torch.randn(2, *shape),),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )
        assert program is not None
        program.save(str(written))
        shapes.quant_pre_process(str(written), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(quantised),
            _reader(quantization, batches),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(str(quantised), options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"images": batch.numpy()})


def _reader(quantization: Any, batches: list[dict[str, Any]]) -> Any:
    """onnxruntime's own interface for batches to calibrate on."""

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.rest, None)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Any:
    """Keeps what exporters and quantisers say about themselves off the terminal."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
