"""Marks of tests that need an optional package, which is not imported for it: every worker reads every file."""

import importlib.util

import pytest

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed (launch/setup all installs it)",
)
