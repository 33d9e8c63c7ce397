"""Statements that change tables: in the end the copy has the tables that the source has."""

from __future__ import annotations

import pytest

from cdc.sandbox.databases import Database
from tests.replica import Replica

pytestmark = pytest.mark.timeout(90)

CHANGES = {
    "truncate": ["TRUNCATE TABLE a", "INSERT INTO a VALUES (9, 'after')"],
    "truncate_without_a_key": ["TRUNCATE bag", "INSERT INTO bag VALUES (9, NULL)"],
    "drop": ["DROP TABLE a"],
    "drop_several": ["DROP TABLE IF EXISTS a, missing, bag"],
    "drop_and_create_again": ["DROP TABLE a", "CREATE TABLE a (k CHAR(3) PRIMARY KEY)", "INSERT INTO a VALUES ('x')"],
    "create": ["CREATE TABLE fresh (id INT PRIMARY KEY)", "INSERT INTO fresh VALUES (1), (2)"],
    "create_like": ["CREATE TABLE fresh LIKE a", "INSERT INTO fresh SELECT * FROM a"],
    "create_select": ["CREATE TABLE fresh AS SELECT * FROM a", "INSERT INTO fresh VALUES (9, 'x')"],
    "add_column_with_default": [
        "ALTER TABLE a ADD COLUMN c VARCHAR(9) NOT NULL DEFAULT 'dflt' AFTER id",
        "INSERT INTO a (id, v) VALUES (9, 'x')",
        "UPDATE a SET c = 'set' WHERE id = 1",
    ],
    "drop_column": ["ALTER TABLE a DROP COLUMN v", "INSERT INTO a VALUES (9)"],
    "modify_column": ["ALTER TABLE a MODIFY id BIGINT UNSIGNED", "INSERT INTO a VALUES (18446744073709551615, 'x')"],
    "drop_key": ["ALTER TABLE a DROP PRIMARY KEY", "INSERT INTO a VALUES (1, 'one')", "DELETE FROM a LIMIT 1"],
    "give_a_key": ["ALTER TABLE bag ADD COLUMN id INT AUTO_INCREMENT PRIMARY KEY", "DELETE FROM bag WHERE id = 1"],
    "rename": ["RENAME TABLE a TO z", "INSERT INTO z VALUES (9, 'x')"],
    "rename_by_alter": ["ALTER TABLE a RENAME TO z", "UPDATE z SET v = 'y'"],
    "swap": [
        "CREATE TABLE shadow LIKE a",
        "INSERT INTO shadow SELECT id + 100, 'shadow' FROM a",
        "RENAME TABLE a TO old, shadow TO a",
        "INSERT INTO a VALUES (9, 'x')",
        "DROP TABLE old",
    ],
    "swap_through_a_third_name": ["RENAME TABLE a TO tmp, b TO a, tmp TO b", "INSERT INTO b VALUES (9, 'x')"],
}  # fmt: skip


@pytest.mark.parametrize("statements", CHANGES.values(), ids=CHANGES)
def test_the_copy_equals_the_source_after_the_change(
    database: Database, replica: Replica, statements: list[str]
) -> None:
    database.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(20))",
        "INSERT INTO a VALUES (1, 'one'), (2, NULL)",
        "CREATE TABLE b (id INT PRIMARY KEY, v VARCHAR(20))",
        "INSERT INTO b VALUES (3, 'b')",
        "CREATE TABLE bag (n INT, v VARCHAR(20))",
        "INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (NULL, NULL)",
    )
    replica.start()
    database.execute(
        "INSERT INTO a VALUES (5, 'before')", *statements, "INSERT INTO b (id, v) VALUES (77, 'later')"
    )
    replica.settle()
    replica.assert_equal()
    database.execute("UPDATE b SET v = CONCAT(v, '!')")
    replica.catch_up()
    replica.assert_equal()
