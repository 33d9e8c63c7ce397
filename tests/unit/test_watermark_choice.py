"""By what a table is followed where no log tells of its changes."""

from __future__ import annotations

import pytest

from cdc.schema import Column, Table
from cdc.watermark.choice import Traits, choose


def _table(*columns: tuple[str, str], key: tuple[str, ...] = ("id",)) -> Table:
    made = [Column("id", "bigint", "bigint"), *(Column(name, kind, kind) for name, kind in columns)]
    return Table("shop", "t", tuple(made), key)


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        (
            ("timestamp", "created_at", "createdAt", "modified_at", "modifiedAt", "updated_at", "updatedAt"),
            "updatedAt",
        ),
        (("timestamp", "created_at", "createdAt", "modified_at", "modifiedAt", "updated_at"), "updated_at"),
        (("timestamp", "created_at", "createdAt", "modified_at", "modifiedAt"), "modifiedAt"),
        (("timestamp", "created_at", "createdAt", "modified_at"), "modified_at"),
        (("timestamp", "created_at", "createdAt"), "createdAt"),
        (("timestamp", "created_at"), "created_at"),
        (("updated", "at", "timestamp"), "timestamp"),
        (("CREATED_AT", "Updated_At"), "Updated_At"),
    ],
)
def test_the_column_is_the_best_by_name_in_any_case(columns: tuple[str, ...], chosen: str) -> None:
    followed = choose(_table(*((name, "datetime") for name in columns)), Traits(growing="id"))
    assert followed.column is not None
    assert (followed.kind, followed.column.name) == ("timestamp", chosen)


@pytest.mark.parametrize("kind", ["date", "datetime", "timestamp"])
def test_a_column_of_a_date_type_will_do(kind: str) -> None:
    assert choose(_table(("updated_at", kind)), Traits()).kind == "timestamp"


@pytest.mark.parametrize("kind", ["bigint", "varchar", "time", "year", "json"])
def test_a_column_of_another_type_is_passed_over(kind: str) -> None:
    followed = choose(_table(("updated_at", kind), ("created_at", "date")), Traits())
    assert followed.column is not None
    assert followed.column.name == "created_at"


def test_a_growing_key_is_followed_where_there_is_no_such_column() -> None:
    followed = choose(_table(("name", "varchar")), Traits(growing="id"))
    assert (followed.kind, followed.column) == ("key", followed.table.column("id"))


@pytest.mark.parametrize(
    ("table", "growing"),
    [
        (_table(("name", "varchar")), None),
        (_table(("name", "varchar"), key=("id", "name")), "id"),
        (_table(("updated_at", "datetime"), key=()), None),
    ],
    ids=["a key that does not grow", "a key of two columns", "no key to replace rows by"],
)
def test_the_others_are_compared_by_checksum(table: Table, growing: str | None) -> None:
    assert choose(table, Traits(growing=growing)).kind == "checksum"


def test_only_a_column_that_updates_move_shows_updates() -> None:
    seen = {
        name: choose(_table((name, "datetime")), Traits()).sees_updates
        for name in ("updatedAt", "modified_at", "created_at", "timestamp")
    }
    assert seen == {"updatedAt": True, "modified_at": True, "created_at": False, "timestamp": False}
