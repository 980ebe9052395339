"""Imports and exports networks: the AdderNet authors' checkpoints, safetensors files, ONNX."""

from addertrain.errors import InterchangeError
from addertrain.interchange.authors import export_official, import_official, load_official
from addertrain.interchange.exported import export_safetensors, load_exported
from addertrain.interchange.onnx_file import export_onnx
from addertrain.interchange.own_operator import onnxruntime_library
from addertrain.interchange.state_dict import Layout, export_state_dict
from addertrain.train.trained import Trained, trained_network

__all__ = [
    "InterchangeError",
    "Layout",
    "Trained",
    "export_official",
    "export_onnx",
    "export_safetensors",
    "export_state_dict",
    "import_official",
    "load_exported",
    "load_official",
    "onnxruntime_library",
    "trained_network",
]
