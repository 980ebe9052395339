"""The script in docs/deepspeed.md runs as it stands, on two ranks."""

import contextlib
import io
import os
import re

import pytest
import torch.distributed as dist

from addertrain.train.strategies.zero import import_deepspeed
from tests.optional import needs_deepspeed
from tests.ranks import on_ranks
from tests.source_tree import ROOT

pytestmark = [pytest.mark.distributed, needs_deepspeed]


def _script() -> str:
    text = (ROOT / "docs" / "deepspeed.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return str(script)


def _run(script: str) -> str:
    import_deepspeed("cpu")
    os.environ["LOCAL_RANK"] = str(dist.get_rank())
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(script, "docs/deepspeed.md", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def test_the_deepspeed_script_trains() -> None:
    script = _script()
    assert len([line for line in script.splitlines() if line.strip()]) <= 40
    for printed in on_ranks(2, _run, script, timeout_s=120):
        loss, rate = re.findall(r"loss ([\d.]+), rates \[([\d.]+)\]", printed)[0]
        assert float(loss) < 1.0, "it starts at ln 10 = 2.3"
        assert float(rate) > 0
