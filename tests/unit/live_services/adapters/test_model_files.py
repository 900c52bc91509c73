"""Files of model versions on this machine: whole or not at all, and never outside their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from live_services.adapters.model_files import ModelFiles
from models_registry.refusals import ARTIFACT_FILES

FILES = {name: name.encode() for name in ARTIFACT_FILES}


def test_what_was_kept_is_read_and_a_later_one_of_the_same_version_replaces_it(tmp_path: Path) -> None:
    kept = ModelFiles(tmp_path / "models")
    assert kept.read("momentum", "1") is None
    kept.keep("momentum", "1", b"{}", FILES)
    assert kept.read("momentum", "1") == (b"{}", FILES)
    kept.keep("momentum", "1", b"{1}", FILES)
    assert kept.read("momentum", "1") == (b"{1}", FILES)
    assert [path.name for path in (tmp_path / "models" / "momentum").iterdir()] == ["1"]


def test_a_version_that_lacks_a_file_is_not_there(tmp_path: Path) -> None:
    kept = ModelFiles(tmp_path)
    kept.keep("momentum", "1", b"{}", FILES)
    (tmp_path / "momentum" / "1" / ARTIFACT_FILES[0]).unlink()
    assert kept.read("momentum", "1") is None


@pytest.mark.parametrize("name", ["..", "", ".hidden", "a/b", "/etc"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="cannot name a folder"):
        ModelFiles(tmp_path).read(name, "1")
    with pytest.raises(OSError, match="cannot name a folder"):
        ModelFiles(tmp_path).read("momentum", name)
