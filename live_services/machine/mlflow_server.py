"""MLflow's server in one process: ``python -m live_services.machine.mlflow_server PORT HOME``, on loopback.

``mlflow server`` makes the tables, then starts a second process that loads all of MLflow again, 230 MB, to serve from.
Here the same process does both. What it serves stands in its environment, under the names of
``mlflow.server.constants``; it logs on the channels of HOME.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

DATABASE: Final = "_MLFLOW_SERVER_FILE_STORE"
ARTIFACT_ROOT: Final = "_MLFLOW_SERVER_ARTIFACT_ROOT"


def main() -> None:
    """Make or check the tables, then serve until SIGTERM."""
    import uvicorn  # before MLflow, which looks whether it runs as a server
    from mlflow.server.handlers import initialize_backend_stores

    database = os.environ[DATABASE]
    # Before anybody can ask: two requests that both find no tables would make them at once, and neither would succeed.
    initialize_backend_stores(database, database, os.environ[ARTIFACT_ROOT])
    _log_on_channels(Path(sys.argv[2]))
    port = int(sys.argv[1])
    # Live processes ask every few seconds: a line for each request would tell nothing and fill the disk.
    uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=port, log_config=None, access_log=False)


def _log_on_channels(home: Path) -> None:
    """Take MLflow's and uvicorn's lines over: MLflow has put a handler of its own on its loggers by now."""
    from live_services.adapters.logs import configure_logging
    from live_services.adapters.redaction import secrets_of
    from live_services.settings import SettingsFileError, load_settings

    try:
        settings = load_settings(alpha_panda_home=home)
    except (ValueError, SettingsFileError, OSError):  # models can be looked at while the settings are mended
        configure_logging("mlflow", home)
    else:
        configure_logging("mlflow", home, settings.logging, secrets=secrets_of(settings))
    for name in ("mlflow", "alembic"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


if __name__ == "__main__":
    main()
