from tests.models_registry_server import mlflow_server
from tests.postgresql_server import postgresql

__all__ = ["mlflow_server", "postgresql"]
