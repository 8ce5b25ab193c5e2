from __future__ import annotations

import pytest

from dws_core._errors import ConfigurationError
from dws_core._log.stream.settings import StreamSettings


def test_defaults_are_valid() -> None:
    assert StreamSettings().probe_s < StreamSettings().dead_s


@pytest.mark.parametrize("changes", [{"probe_s": 0.0}, {"probe_s": 3.0}, {"envelope_records": 0}, {"in_flight": 0}])
def test_impossible_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="Fix: "):
        StreamSettings(**changes)  # type: ignore[arg-type]


def test_envelope_has_no_more_records_than_offsets() -> None:
    """An offset has 16 bits for the place of a record in its envelope."""
    assert StreamSettings(envelope_records=65_535).envelope_records == 65_535
    with pytest.raises(ConfigurationError, match="65535"):
        StreamSettings(envelope_records=65_536)
