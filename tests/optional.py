"""Marks of tests that need an optional package, without an import: every worker reads every file of tests."""

import importlib.util

import pytest

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None,
    reason="timm is not installed (launch/setup all installs it, or pip install timm)",
)
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed (launch/setup all installs it)",
)
