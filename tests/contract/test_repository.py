"""The repository's own promises: one import direction, locks without addresses, a reason beside each dependency."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "requirements.lock"
LOCKS = sorted(ROOT.glob("requirements*.lock"))
PACKAGES = ("feature_store", "models_registry", "live_services", "dagster_project")


def test_imports_run_one_way_and_pure_modules_do_no_io() -> None:
    # In a process of its own: it disables the loggers that there are.
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()


def test_no_package_imports_tests_notebooks_or_benchmarks() -> None:
    importing = re.compile(r"^\s*(from|import) (tests|notebooks|benchmarks)\b", re.MULTILINE)
    offenders = [p for package in PACKAGES for p in (ROOT / package).rglob("*.py") if importing.search(p.read_text())]
    assert offenders == []


def _distributions(lock: Path) -> dict[str, str]:
    """Each distribution with its versions, as a lock pins them."""
    pinned: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==(\S+)", lock.read_text(), re.MULTILINE):
        pinned.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in pinned.items()}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_every_distribution_by_hash_and_names_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "index-url" not in text
    requirements = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert [r for r in requirements if "--hash=sha256:" not in r] == []


def test_the_locks_of_extras_add_to_the_lock_of_what_runs_and_are_of_one_resolution() -> None:
    runs = _distributions(RUNS)
    added = [_distributions(lock) for lock in LOCKS if lock != RUNS]
    assert [sorted(set(more) & set(runs)) for more in added] == [[]] * len(added)
    together: dict[str, str] = {}
    for more in added:
        assert {name: version for name, version in more.items() if together.get(name, version) != version} == {}
        together |= more


def test_what_is_installed_to_run_has_no_linter_no_test_library_and_no_client_of_a_broker() -> None:
    not_to_run = {"kiteconnect", "twisted", "ruff", "mypy", "pandas-stubs", "types-requests", "ta-lib", "uv", "pytest"}
    assert not_to_run & set(_distributions(RUNS)) == set()
    assert "kiteconnect" not in _distributions(ROOT / "requirements-test.lock")


@pytest.mark.skipif("CI" not in os.environ, reason="a person may have installed requirements-zerodha.lock here")
def test_the_paper_desk_cannot_import_a_brokers_client_because_it_is_not_there() -> None:
    assert importlib.util.find_spec("kiteconnect") is None


def test_everything_that_the_packages_import_is_installed_to_run() -> None:
    lock, of_module = set(_distributions(RUNS)), packages_distributions()
    imported = {
        name.split(".")[0]
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _names_of(node)
    }
    brought = {"polars"}  # with the tables of whoever has it
    foreign = imported - set(sys.stdlib_module_names) - set(PACKAGES) - brought
    assert {name for name in foreign if not lock & {_normal(d) for d in of_module.get(name, ())}} == set()


def _names_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


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
