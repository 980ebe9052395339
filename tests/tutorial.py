"""The tutorial notebook: `python -m tests.tutorial` executes its cells and keeps what they print and draw.

Jupyter shows the same: what a cell writes to stdout and stderr, then the figures that it leaves open. The
cells use none of IPython's own syntax and print what they want seen, so that they need nothing but Python and
matplotlib.
"""

import base64
import contextlib
import copy
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from tests.source_tree import ROOT

TUTORIAL = ROOT / "docs" / "notebook" / "tutorial.ipynb"
Notebook = dict[str, Any]


def read_notebook(path: Path = TUTORIAL) -> Notebook:
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def sources(notebook: Notebook) -> list[str]:
    """The text of every code cell, in order."""
    return ["".join(cell["source"]) for cell in _code_cells(notebook)]


def printed(notebook: Notebook, stream: str = "stdout") -> str:
    """What all cells wrote to a stream."""
    kept = [output for cell in _code_cells(notebook) for output in cell["outputs"]]
    return "".join("".join(output["text"]) for output in kept if output.get("name") == stream)


def source_sha256(notebook: Notebook) -> str:
    """Of the code that outputs are kept for."""
    return hashlib.sha256("\0".join(sources(notebook)).encode()).hexdigest()


def execute(notebook: Notebook) -> Notebook:
    """A copy with new outputs. Cells run in this process and in the working folder, as in Jupyter."""
    import matplotlib as mpl

    mpl.use("Agg")
    executed = copy.deepcopy(notebook)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(_code_cells(executed), start=1):
        cell["execution_count"] = number
        cell["outputs"] = _outputs(f"cell {number}", "".join(cell["source"]), namespace)
    executed["metadata"]["source_sha256"] = source_sha256(executed)
    return executed


def _code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _outputs(name: str, source: str, namespace: dict[str, Any]) -> list[dict[str, Any]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        exec(compile(source, name, "exec"), namespace)
    written = [("stdout", out.getvalue()), ("stderr", err.getvalue())]
    texts = [
        {"output_type": "stream", "name": stream, "text": text.splitlines(keepends=True)}
        for stream, text in written
        if text
    ]
    return texts + _figures()


def _figures() -> list[dict[str, Any]]:
    """Every open figure as a picture; closes them, as Jupyter does at the end of a cell."""
    from matplotlib import pyplot

    drawn = []
    for number in pyplot.get_fignums():
        picture = io.BytesIO()
        pyplot.figure(number).savefig(picture, format="png", dpi=90, metadata={"Software": None})
        encoded = base64.b64encode(picture.getvalue()).decode()
        drawn.append({"output_type": "display_data", "metadata": {}, "data": {"image/png": encoded}})
    pyplot.close("all")
    return drawn


def main() -> None:
    """Writes the executed notebook to the path that is given, or over the tutorial itself."""
    path = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else TUTORIAL
    with contextlib.chdir(TUTORIAL.parent):  # where Jupyter starts it
        executed = execute(read_notebook())
    path.write_text(json.dumps(executed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
