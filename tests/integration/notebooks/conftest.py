from tests.models_registry_server import mlflow_server

__all__ = ["mlflow_server"]
