"""The notebook runs, and the outputs that lie in the repository are those of this version."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "compare" / "compare.ipynb"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def executed(folder):
    """The notebook, run anew."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "IPYTHONDIR",
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_RUNTIME_DIR",
        ):  # nothing of the user's is read or written
            patch.setenv(name, str(folder / name.lower()))
        client = NotebookClient(
            notebook, timeout=60, record_timing=False, resources={"metadata": {"path": str(folder)}}
        )
        return client.execute()


def outputs(notebook):
    return [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]


def test_it_runs(executed, folder):
    assert outputs(executed)[-1] == "False"
    assert (folder / "december.html").read_text().startswith("<!doctype html>")


def test_nothing_is_printed_but_results(executed):
    kinds = {output["output_type"] for cell in executed.cells for output in cell.get("outputs", [])}
    assert kinds == {"execute_result"}


def test_the_outputs_are_those_of_a_run(executed):
    stored = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(stored)
    assert outputs(stored) == outputs(executed)


def test_it_tells_nothing_of_the_machine():
    document = json.loads(NOTEBOOK.read_text())
    assert document["metadata"] == METADATA
    assert all(not cell["metadata"] for cell in document["cells"])
    assert str(Path.home()) not in NOTEBOOK.read_text()
