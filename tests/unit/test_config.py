"""Settings: where they come from, and what stops the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.config import Settings, load_settings
from cdc.errors import ConfigError

URL = "mysql://reader:hush-hush@db.example:3306/shop"
KEY = "0123456789abcdef0123"


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine reaches a test."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_those_that_the_manual_names() -> None:
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 3001)
    assert settings.duckdb_path == Path("data/duckling.db")
    assert settings.cdc_enabled
    assert settings.auto_start_sync
    assert settings.sync_interval_minutes == 15
    assert settings.log_format == "auto"


def test_options_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "duckling.toml").write_text('port = 1\nhost = "a"\nbatch_size = 7\n')
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("HOST", "b")
    settings = load_settings(port=3, host=None)
    assert (settings.port, settings.host, settings.batch_size) == (3, "b", 7)


def test_another_settings_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "duckling.toml").write_text("port = 1\n")
    (tmp_path / "other.toml").write_text("port = 2\n")
    assert load_settings(tmp_path / "other.toml").port == 2
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load_settings(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "80000"),
        ("PORT", "three"),
        ("BATCH_SIZE", "0"),
        ("CDC_ENABLED", "perhaps"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("SYNC_INTERVAL_MINUTES", "0"),
        ("SERVER_ID", "4294967296"),
        ("SERVER_ID", "1"),
        ("MAX_LAG_SECONDS", "-1"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert name.lower() in caught.value.message.lower()
    assert caught.value.hint


def test_an_unknown_setting_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "duckling.toml").write_text("batch_sise = 7\n")
    with pytest.raises(ConfigError, match="batch_sise: unknown setting"):
        load_settings()


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ConfigError, match="colour: unknown setting"):
        load_settings(colour="green")


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "duckling.toml").write_text("port = = 1\n")
    with pytest.raises(ConfigError, match=r"duckling\.toml"):
        load_settings()


def test_foreign_variables_of_the_environment_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_SISE", "7")
    assert load_settings().batch_size == 50_000


def test_lists_of_tables_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INCLUDED_TABLES", "orders, customers ,,")
    assert load_settings().included_tables == ("orders", "customers")


def test_a_list_of_tables_in_the_file_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "duckling.toml").write_text('excluded_tables = ["a", "b"]\n')
    assert load_settings().excluded_tables == ("a", "b")


def test_a_table_can_not_be_included_and_excluded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INCLUDED_TABLES", "orders,customers")
    monkeypatch.setenv("EXCLUDED_TABLES", "orders")
    with pytest.raises(ConfigError, match="'orders'"):
        load_settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSQL_CONNECTION_STRING", URL)
    monkeypatch.setenv("DUCKLING_API_KEY", KEY)
    settings = load_settings()
    for shown in (repr(settings), str(settings), repr(settings.model_dump())):
        assert "hush-hush" not in shown
        assert KEY not in shown


def test_a_wrong_value_is_never_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "hush-hush")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "hush-hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"duckling_api_key": KEY}, "MYSQL_CONNECTION_STRING"),
        ({"mysql_connection_string": URL}, "DUCKLING_API_KEY"),
        ({"mysql_connection_string": URL, "duckling_api_key": " , "}, "DUCKLING_API_KEY"),
        ({"mysql_connection_string": URL, "duckling_api_key": "x" * 15}, "shorter than 16"),
        ({"mysql_connection_string": URL, "duckling_api_key": f"{KEY},short"}, "shorter than 16"),
        ({"mysql_connection_string": URL, "insecure": True, "host": "0.0.0.0"}, "DUCKLING_API_KEY"),
        (
            {"mysql_connection_string": URL, "insecure": True, "duckling_api_key": "short"},
            "shorter than 16",
        ),
    ],
)
def test_serving_openly_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        load_settings(**options).check_serving()
    assert caught.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"duckling_api_key": KEY},
        {"duckling_api_key": f"{KEY},{KEY}2", "host": "0.0.0.0"},
        {"insecure": True},
        {"insecure": True, "host": "::1"},
        {"insecure": True, "host": "localhost"},
    ],
)
def test_serving_with_a_key_or_on_loopback_only_is_fine(options: dict[str, Any]) -> None:
    load_settings(mysql_connection_string=URL, **options).check_serving()


def test_several_keys_allow_rotation() -> None:
    assert load_settings(duckling_api_key=f"{KEY}, ключ-{KEY}").api_keys == (
        KEY.encode(),
        f"ключ-{KEY}".encode(),
    )


def test_every_setting_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    missing = [name.upper() for name in Settings.model_fields if f"`{name.upper()}`" not in manual]
    assert missing == []
