"""MLflow's server in one process: ``python -m live_services.machine.mlflow_server PORT``, on loopback.

``mlflow server`` makes the tables, then starts a second process that loads all of MLflow again, 230 MB, to serve from.
Here the same process does both. What it serves stands in its environment, under the names of
``mlflow.server.constants``.
"""

from __future__ import annotations

import os
import sys
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
    uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
