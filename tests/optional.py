"""Marks of tests that need an optional package, without an import: every worker reads every file of tests."""

import importlib.util

import pytest

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed (launch/setup all installs it)",
)
