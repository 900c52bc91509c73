"""The repository's own promises: one import direction, a lock without addresses, a reason beside each dependency."""

import re
import tomllib
from pathlib import Path

import pytest
from importlinter import cli as import_linter

ROOT = Path(__file__).parents[2]
PACKAGES = ("feature_store", "models_registry", "live_services", "dagster_project")


def test_imports_run_one_way_and_pure_modules_do_no_io(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert (
        import_linter.lint_imports(config_filename="pyproject.toml", no_cache=True) == import_linter.EXIT_STATUS_SUCCESS
    )


def test_no_package_imports_tests_notebooks_or_benchmarks() -> None:
    importing = re.compile(r"^\s*(from|import) (tests|notebooks|benchmarks)\b", re.MULTILINE)
    offenders = [p for package in PACKAGES for p in (ROOT / package).rglob("*.py") if importing.search(p.read_text())]
    assert offenders == []


def test_the_lock_pins_every_distribution_by_hash_and_names_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "index-url" not in lock
    requirements = re.split(r"\n(?=[a-z0-9])", lock.strip())
    assert [r for r in requirements if "--hash=sha256:" not in r] == []


def test_every_dependency_has_its_reason_beside_it() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    declared = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    obvious = {"pytest", "ruff", "mypy", "numpy", "pandas-stubs", "types-requests", "psutil"}
    without = [
        d
        for d in declared
        if re.split(r"[<>=]", d)[0] not in obvious and not re.search(rf'"{re.escape(d)}",\s*#', text)
    ]
    assert without == []
