"""A PostgreSQL server of the tests' own, on a socket in a folder of its own, where Debian's package is installed."""

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ACCOUNT = "postgres"
"""PostgreSQL refuses to run as root; then the account of Debian's package runs it."""


@pytest.fixture(scope="session")
def postgresql():
    """Give what makes one empty database after another, as ``postgresql://`` addresses."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not programs:
        reason = "PostgreSQL is not installed: apt-get install postgresql"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    # The path of a socket has at most 107 characters, so it is not under pytest's own folder.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    account = {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": []} if os.geteuid() == 0 else {}

    def run(program, *arguments):
        done = subprocess.run(
            [programs[-1] / program, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **account,
        )
        assert done.returncode == 0, done.stdout + done.stderr + _log(folder)

    try:
        if account:
            shutil.chown(folder, ACCOUNT, ACCOUNT)
        run("initdb", "-D", "data", "-U", ACCOUNT, "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        run("pg_ctl", "-D", "data", "-o", options, "-l", "log", "-w", "start")
        numbers = itertools.count()

        def empty_database():
            name = f"ledger{next(numbers)}"
            run("createdb", "-h", str(folder), "-U", ACCOUNT, name)
            return f"postgresql://{ACCOUNT}@/{name}?host={folder}"

        try:
            yield empty_database
        finally:
            run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def _log(folder):
    return (folder / "log").read_text() if (folder / "log").exists() else ""
