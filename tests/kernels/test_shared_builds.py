"""A build is made once for these sources, and again where it failed."""

from pathlib import Path

import pytest

from tests.kernels.shared_builds import built_once


def _fail_halfway(root: Path) -> None:
    with built_once(root, "library") as (folder, is_there):
        assert not is_there
        (folder / "half").touch()
        raise RuntimeError("the compiler failed")


def test_a_build_is_made_once_and_a_failed_one_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the compiler failed"):
        _fail_halfway(tmp_path)

    with built_once(tmp_path, "library") as (folder, is_there):
        assert not is_there
        assert not (folder / "half").exists()
        (folder / "whole").touch()

    with built_once(tmp_path, "library") as (folder, is_there):
        assert is_there
        assert (folder / "whole").exists()
