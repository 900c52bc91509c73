"""Whether what went out live is what history computes, looked at once a day and whenever a person asks."""

import datetime as dt
from typing import Any, Final

import dagster as dg

from dagster_project.plots import markdown_table
from dagster_project.sensors.live import LIVE_MODEL
from feature_store.market.types import IST
from live_services.settings import Settings


@dg.asset_check(
    asset=LIVE_MODEL,
    description="The feature rows of the newest session on the log (in signals, and the newest in the online store) "
    "are computed again from its recorded ticks; a single bit that differs fails. A look without a running desk is a "
    "warning. `alpha-panda features verify` does the same.",
)
def live_features_equal_history(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Compare the live rows of the newest session with history's."""
    from aiokafka.errors import KafkaError

    from feature_store.market.types import MarketDataError
    from live_services.adapters.kafka import KafkaSetupError
    from live_services.cli.skew_check import skew_report
    from live_services.domain.strategy.skew import describe
    from live_services.failures import CommandFailed

    try:
        report = skew_report(settings)
    except (CommandFailed, KafkaSetupError, KafkaError, MarketDataError, OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        return dg.AssetCheckResult(
            passed=False, severity=dg.AssetCheckSeverity.WARN, description=f"not compared: {why}"
        )
    metadata: dict[str, Any] = {
        "rows": report.rows,
        "rows_different": report.rows_different,
        "rows_unverified": report.rows_unverified,
        "notes": list(report.notes) or "none",
    }
    if report.differences:
        lines = [(describe(difference),) for difference in report.differences]
        metadata["differences"] = dg.MetadataValue.md(markdown_table(("first differences",), lines))
    said = f"{report.rows_different:,} of {report.rows:,} rows differ" if report.rows else "no live row to compare"
    return dg.AssetCheckResult(
        passed=report.rows > 0 and not report.rows_different,
        severity=dg.AssetCheckSeverity.ERROR if report.rows_different else dg.AssetCheckSeverity.WARN,
        description=said,
        metadata=metadata,
    )


verify_live = dg.define_asset_job(
    "verify_live",
    selection=dg.AssetSelection.checks(live_features_equal_history),
    description="Compute the live feature rows of the newest session again, and compare every bit.",
)


@dg.schedule(
    job=verify_live,
    cron_schedule="0 16 * * 1-5",
    execution_timezone=str(IST),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Half an hour after the close, where a desk is running.",
)
def verify_live_after_close(
    context: dg.ScheduleEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.RunRequest | dg.SkipReason:
    """Launch the look, unless there is nothing to look at."""
    if not settings.kafka.bootstrap_servers:
        return dg.SkipReason("No Kafka is set, so no desk is running here.")
    day: dt.date = context.scheduled_execution_time.astimezone(IST).date()
    return dg.RunRequest(run_key=day.isoformat())


CHECKS: Final = (live_features_equal_history,)
