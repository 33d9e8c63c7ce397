"""What the server answers, in terms of our errors: whether trying again is right decides how a stream goes on."""

from __future__ import annotations

import pytest
from pymysql import err

from cdc.errors import SourceAccessError, SourceError, SourceUnavailableError
from cdc.source.translation import translate


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (6, SourceUnavailableError),  # a temporary file is gone
        (20, SourceUnavailableError),  # no room on the disk
        (1040, SourceUnavailableError),
        (1045, SourceAccessError),
        (1142, SourceAccessError),
        (1205, SourceUnavailableError),
    ],
)
def test_numbers_tell_what_passes_and_what_does_not(number: int, kind: type[SourceError]) -> None:
    found = translate(err.OperationalError(number, "so says the server"), doing="reading")
    assert type(found) is kind
    assert found.message.startswith("reading: ")
    assert found.hint


def test_a_number_that_means_nothing_to_us_is_told() -> None:
    found = translate(err.ProgrammingError(1064, "a syntax error"), doing="reading")
    assert type(found) is SourceError
    assert not found.retryable
    assert "1064" in found.message
