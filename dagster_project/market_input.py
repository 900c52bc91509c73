"""Which files one run brings in, where a person says so in the Launchpad or with `alpha-panda train`."""

import dagster as dg
from pydantic import Field, ValidationError

from feature_store.market.types import MarketDataError
from live_services.settings import MarketSettings, Settings


class MarketInput(dg.Config):
    """Files of one run and how they are read; what is left empty is as the settings say under ``market``."""

    bars_file: str = Field(default="", description="Bars, CSV or Parquet: an absolute path, on Dagster's machine.")
    ticks_file: str = Field(default="", description="Ticks of later sessions, CSV or Parquet: an absolute path.")
    columns: dict[str, str] = Field(default={}, description="The files' own names of our columns: time: Date, open: O.")
    time_format: str = Field(default="", description='How times are written: "%d-%m-%Y %H:%M", epoch_s, epoch_ms, ….')
    timezone: str = Field(default="", description="Zone of times that name none: Asia/Kolkata, UTC.")
    stamp: str = Field(default="", description="Whether a bar's time is its start or its end.")

    def over(self, settings: Settings) -> Settings:
        """Give the settings with what was said here in place of theirs.

        Raises
        ------
        MarketDataError
            If something said here cannot be; the message names it.
        """
        said = {name: value for name, value in self.model_dump().items() if value}
        if "bars_file" in said or "ticks_file" in said:
            said["source"] = "files"
        try:
            market = MarketSettings.model_validate(settings.market.model_dump() | said)
        except ValidationError as wrong:
            first = wrong.errors()[0]
            named = ".".join(map(str, first["loc"])) or "market"
            raise MarketDataError(f"{named}: {first['msg'].removeprefix('Value error, ')}") from wrong
        return settings.model_copy(update={"market": market})
