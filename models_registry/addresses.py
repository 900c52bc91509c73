"""Addresses of what a version names, built when they are shown: a version holds ids, which outlive every port."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

_UI: Final = "?workflowType=machine_learning"
"""Without it the MLflow interface opens in its GenAI view, which shows no classic models."""


def without_credentials(address: str) -> str:
    """Leave user and password out of an address: it may hold them, what is shown never does."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def models_page(tracking_uri: str) -> str:
    """Page of all models in the MLflow interface."""
    return f"{_shown(tracking_uri)}/#/models{_UI}"


def model_page(tracking_uri: str, name: str) -> str:
    """Page of a model and its versions in the MLflow interface."""
    return f"{_shown(tracking_uri)}/#/models/{quote(name)}{_UI}"


def version_page(tracking_uri: str, name: str, version: str) -> str:
    """Page of a version in the MLflow interface."""
    return f"{_shown(tracking_uri)}/#/models/{quote(name)}/versions/{quote(version)}{_UI}"


def plot_source(mlflow_run_id: str, plot: str) -> str:
    """Where a page of the MLflow interface finds a plot of a run: relative, so it goes wherever the server goes."""
    return f"get-artifact?path={quote('plots/' + plot)}&run_uuid={quote(mlflow_run_id)}"


def run_page(dagster_url: str, run_id: str) -> str:
    """Page of a Dagster run; its id alone where no Dagster is known, empty where no run is."""
    return f"{_shown(dagster_url)}/runs/{quote(run_id)}" if dagster_url and run_id else run_id


def _shown(address: str) -> str:
    return without_credentials(address).rstrip("/")
