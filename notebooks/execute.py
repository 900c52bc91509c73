"""Run the notebooks from top to bottom on a desk's home, and keep their pictures but nothing of this machine.

``python -m notebooks.execute`` runs all of them in place, on the home of the settings;
``python -m notebooks.execute 03 --folder OUT`` one of them, into another folder. The kernel is this very Python.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER: Final = Path(__file__).parent
MACHINE: Final = re.compile(r"(/home/|/root/|/tmp/|/mnt/|/Users/|127\.0\.0\.1|localhost|0x[0-9a-f]{8,})")
"""What no output that is committed may have in it: a path, an address, a place in memory."""
_SECONDS: Final = 1800


class NotOfEveryMachine(ValueError):
    """An output that names a path or an address of the machine it was made on."""


def notebooks(chosen: Sequence[str] = ()) -> tuple[Path, ...]:
    """Give the notebooks whose names begin with one of these, in order; without any, all."""
    found = sorted(FOLDER.glob("*.ipynb"))
    return tuple(path for path in found if not chosen or path.name.startswith(tuple(chosen)))


def executed(path: Path, working_directory: Path) -> NotebookNode:
    """Run a notebook from top to bottom and give it with its outputs, without what tells this machine or this run.

    Parameters
    ----------
    path : Path
        Of the notebook.
    working_directory : Path
        Of the kernel: the folder above the notebooks.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails; the message has its traceback.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=_SECONDS, resources={"metadata": {"path": str(working_directory)}})
    client.execute(env=_environment(working_directory))
    return stripped(notebook)


def stripped(notebook: NotebookNode) -> NotebookNode:
    """Take out when and where a notebook was run: times of cells, versions, warnings on the screen."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
            for data in (one["data"] for one in cell.outputs if "text/html" in one.get("data", {})):
                data.pop("text/plain", None)  # of an object that has a page, the place in memory
    return notebook


def require_no_machine(notebook: NotebookNode, name: str) -> None:
    """Refuse a notebook whose outputs name a path or an address. Raises NotOfEveryMachine."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            for text in _texts(output):
                if found := MACHINE.search(text):
                    raise NotOfEveryMachine(f"{name}: the output of cell {number} has {found.group()!r} in it")


def _texts(output: NotebookNode) -> list[str]:
    data = [value for kind, value in output.get("data", {}).items() if kind != "image/png"]
    return [str(output.get("text", "")), *(str(value) for value in data)]


def _environment(working_directory: Path) -> dict[str, str]:
    """Give the kernel this environment, with the folder that it works in on its path."""
    import os

    path = os.pathsep.join(filter(None, (str(working_directory.absolute()), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def main() -> None:
    """Run notebooks, as the command line says."""
    import nbformat

    parser = argparse.ArgumentParser(description="Run the notebooks on the home of the settings.")
    parser.add_argument("chosen", nargs="*", help="first characters of names, for example 03; default: all")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they are written [in place]")
    asked = parser.parse_args()
    for path in notebooks(asked.chosen):
        notebook = executed(path, FOLDER.parent)
        require_no_machine(notebook, path.name)
        asked.folder.mkdir(parents=True, exist_ok=True)
        written = asked.folder / path.name
        nbformat.write(notebook, written)
        print(f"{path.name}: {written.stat().st_size / 1000:.0f} kB")  # noqa: T201 (a command's answer)


if __name__ == "__main__":
    main()
