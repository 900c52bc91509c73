"""The research side of one machine for the tests: everything that Dagster shows, on a real registry and ledger."""

import datetime as dt

import dagster as dg

from dagster_project.definitions import definitions, resources
from dagster_project.sensors.promotion import promote_champion
from live_services.settings import load_settings
from models_registry.ledger import PromotionLedger
from models_registry.registry import Registry


class ResearchDesk:
    """One machine's research side: definitions, instance, registry and ledger."""

    def __init__(self, home, url, instance=None, **settings):
        made = {"instruments": 10, "sessions": 12, "edge_bps": 8.0, "reversion_bps": 0.0, "breakout_bps": 0.0}
        desk = {} if "market" in settings else {"market": {"synthetic": made}, "strategies": [{"name": "momentum"}]}
        self.settings = load_settings(**{"alpha_panda_home": home, "mlflow": {"tracking_uri": url}} | desk | settings)
        self.definitions = definitions(self.settings, dt.date(2027, 1, 1))
        self.instance = instance
        self.registry = Registry(url) if url else None
        self.ledger = PromotionLedger(self.settings.ledger_url)
        self.cursor = None

    def launch(self, job, **config):
        run_config = {"ops": {op: {"config": values} for op, values in config.items()}}
        found = self.definitions.resolve_job_def(job)
        return found.execute_in_process(run_config, instance=self.instance, raise_on_error=False)

    def materialise(self, asset, **tags):
        everything = self.definitions.resolve_implicit_global_asset_job_def()
        return everything.execute_in_process(asset_selection=[dg.AssetKey(asset)], instance=self.instance, tags=tags)

    def look(self):
        """One tick of the sensor, as the daemon does it."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources=resources(self.settings),
            definitions=self.definitions,
        )
        result = promote_champion(context)
        if isinstance(result, dg.SkipReason):
            return []
        self.cursor = result.cursor
        return [(event.asset_key.to_user_string(), event.metadata["version"].value) for event in result.asset_events]

    def metadata(self, asset):
        event = self.instance.get_latest_materialization_event(dg.AssetKey(asset))
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}
