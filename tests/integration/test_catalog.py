from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from pydantic import SecretStr
from pymysql.connections import Connection

from cdc.config import Settings
from cdc.errors import ConfigError, SourceUnavailableError
from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.servers import Server
from cdc.schema import Table
from cdc.source.catalog import (
    ForeignKey,
    foreign_keys_with_cascade,
    load_tables,
    parse_members,
    system_versioned_tables,
)
from cdc.source.connection import SourceEndpoint
from tests.sessions import waiting_for_a_lock
from tests.waiting import wait_until


@pytest.fixture
def session(database: Database) -> Iterator[Connection]:
    """A session as the service opens them."""
    connection = SourceEndpoint(Settings(mysql_connection_string=SecretStr(database.url))).connect(
        purpose="a test"
    )
    yield connection
    connection.close()


def only(session: Connection, database: Database) -> Table:
    (table,) = load_tables(session, database.name)
    return table


def test_columns_come_in_order_with_all_that_the_types_need(database: Database, session: Connection) -> None:
    database.execute(
        """CREATE TABLE everything (
            id BIGINT UNSIGNED NOT NULL PRIMARY KEY, tiny TINYINT(1), zero INT(5) ZEROFILL,
            amount DECIMAL(20, 4), ratio DOUBLE, bits BIT(11), name VARCHAR(40) CHARACTER SET latin1,
            body LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, code CHAR(3) CHARACTER SET utf8mb3,
            raw VARBINARY(16), fixed BINARY(4), bytes BLOB, document JSON,
            day DATE, moment DATETIME(6), stamp TIMESTAMP(3) NULL DEFAULT CURRENT_TIMESTAMP(3), span TIME(2),
            y YEAR, size ENUM('s', 'm'), flags SET('a', 'b'), place POINT,
            doubled BIGINT AS (id * 2) VIRTUAL, tripled BIGINT AS (id * 3) STORED,
            hidden INT DEFAULT 7 INVISIBLE)"""
    )
    table = only(session, database)
    assert " ".join(column.name for column in table.columns) == (
        "id tiny zero amount ratio bits name body code raw fixed bytes document day moment stamp span y size"
        " flags place doubled tripled hidden"
    )
    assert (table.schema, table.name, table.engine) == (database.name, "everything", "InnoDB")
    by_name = {column.name: column for column in table.columns}
    assert by_name["id"].unsigned
    assert not by_name["id"].nullable
    assert by_name["tiny"].column_type == "tinyint(1)"
    assert by_name["zero"].unsigned
    assert (by_name["amount"].precision, by_name["amount"].scale) == (20, 4)
    assert by_name["bits"].precision == 11
    assert (by_name["name"].character_set, by_name["name"].length) == ("latin1", 40)
    assert (by_name["body"].character_set, by_name["body"].collation) == ("utf8mb4", "utf8mb4_bin")
    assert by_name["code"].character_set == "utf8mb3"
    for binary in ("raw", "fixed", "bytes"):
        assert by_name[binary].character_set is None
    assert by_name["raw"].length == 16
    assert by_name["document"].data_type == ("json" if database.flavor == "mysql" else "longtext")
    assert [by_name[name].fraction for name in ("moment", "stamp", "span", "day")] == [6, 3, 2, 0]
    assert by_name["size"].members == ("s", "m")
    assert by_name["flags"].members == ("a", "b")
    assert by_name["place"].data_type == "point"
    assert [c.name for c in table.columns if c.generated] == ["doubled", "tripled"]
    assert [c.name for c in table.columns if c.invisible] == ["hidden"]
    assert Table.from_json(table.to_json()) == table


QUOTED = ("it's", "''", "a,b", "a','b", "(x)", "back\\slash", "ends\\", "\\'", '"q"', "`", "50%")
OTHER = ("", "é", "日本", "new\nline", "car\rriage", "tab\tbed", "\x1a")
MEMBERS = QUOTED + OTHER


def test_members_of_an_enum_are_exact_whatever_characters_they_have(
    database: Database, session: Connection
) -> None:
    connection = database.connect(charset="utf8mb4")
    listed = ", ".join(connection.escape(member) for member in MEMBERS)
    # SET members may not hold a comma
    others = ", ".join(connection.escape(member) for member in MEMBERS if "," not in member)
    with connection.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
        cursor.execute(
            f"CREATE TABLE choices (e ENUM({listed}) CHARACTER SET utf8mb4,"
            f" s SET({others}) CHARACTER SET utf8mb4)"
        )
        # the server itself says which member has which number
        cursor.executemany("INSERT INTO choices (e) VALUES (%s)", [(n,) for n in range(1, len(MEMBERS) + 1)])
        cursor.execute("SELECT e FROM choices ORDER BY e + 0")
        assert tuple(row[0] for row in cursor.fetchall()) == MEMBERS
    choices, flags = only(session, database).columns
    assert choices.members == MEMBERS
    assert flags.members == tuple(member for member in MEMBERS if "," not in member)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("enum('a')", ("a",)),
        ("ENUM('a','b')", ("a", "b")),
        ("set('x''y','\\\\','\\n\\r\\0')", ("x'y", "\\", "\n\r\0")),
        ("enum('')", ("",)),
        ("varchar(3)", ()),
        ("enum('a','b') /*M!100301 COMPRESSED*/", ("a", "b")),
    ],
)
def test_members_are_parsed_from_the_column_type(text: str, members: tuple[str, ...]) -> None:
    assert parse_members(text) == members


def test_the_primary_key_is_in_key_order(database: Database, session: Connection) -> None:
    database.execute(
        "CREATE TABLE t (a INT, b INT, c VARCHAR(20), d INT UNIQUE, PRIMARY KEY (c, a), KEY (b))"
    )
    assert only(session, database).primary_key == ("c", "a")


def test_a_unique_key_is_no_primary_key(database: Database, session: Connection) -> None:
    database.execute("CREATE TABLE t (a INT NOT NULL UNIQUE)")
    assert only(session, database).primary_key == ()


def test_a_key_that_the_server_generates_is_listed(database: Database, session: Connection) -> None:
    if database.flavor == "mysql":
        connection = database.connect()
        with connection.cursor() as cursor:
            cursor.execute("SET sql_generate_invisible_primary_key = ON")
            cursor.execute("CREATE TABLE t (a INT)")
        table = only(session, database)
        assert table.primary_key == ("my_row_id",)
        assert table.column("my_row_id").invisible
    else:  # has no such keys; a hidden hash column of a long unique key stays hidden
        database.execute("CREATE TABLE t (a TEXT, UNIQUE (a))")
        assert [column.name for column in only(session, database).columns] == ["a"]


def test_views_sequences_and_temporary_tables_are_no_tables(database: Database, session: Connection) -> None:
    database.execute("CREATE TABLE t (a INT PRIMARY KEY)", "CREATE VIEW v AS SELECT * FROM t")
    if database.flavor == "mariadb":
        database.execute("CREATE SEQUENCE s")
    with session.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE passing (a INT)")
    assert [table.name for table in load_tables(session, database.name)] == ["t"]


def test_system_versioned_tables_are_listed(database: Database, session: Connection) -> None:
    database.execute("CREATE TABLE t (a INT PRIMARY KEY)")
    versioned = set()
    if database.flavor == "mariadb":
        database.execute("CREATE TABLE old (a INT PRIMARY KEY) WITH SYSTEM VERSIONING")
        versioned = {"old"}
    assert system_versioned_tables(session, database.name) == versioned
    assert {table.name for table in load_tables(session, database.name)} == {"t"} | versioned


def test_names_are_spelled_as_the_server_does(database: Database, session: Connection) -> None:
    database.execute(
        "CREATE TABLE `Größe ``x`` 表` (`Ünï  ``c``` INT PRIMARY KEY)", "CREATE TABLE `select` (`from` INT)"
    )
    tables = load_tables(session, database.name)
    assert [(table.name, table.columns[0].name) for table in tables] == [
        ("Größe `x` 表", "Ünï  `c`"),
        ("select", "from"),
    ]


def test_included_and_excluded_take_names_and_patterns(database: Database, session: Connection) -> None:
    database.execute(
        *(f"CREATE TABLE `{name}` (a INT)" for name in ("orders", "order_lines", "log_1", "odd[1]", "odd1"))
    )

    def names(included: tuple[str, ...] = (), excluded: tuple[str, ...] = ()) -> list[str]:
        return [t.name for t in load_tables(session, database.name, included=included, excluded=excluded)]

    assert names() == ["log_1", "odd1", "odd[1]", "order_lines", "orders"]
    assert names(("orders",)) == ["orders"]
    assert names(("order*",)) == ["order_lines", "orders"]
    assert names(("order*",), ("order_*",)) == ["orders"]
    assert names(excluded=("log_*", "absent")) == ["odd1", "odd[1]", "order_lines", "orders"]
    assert names(("odd[1]",)) == ["odd[1]"]


def test_an_included_name_that_does_not_exist_is_an_error(database: Database, session: Connection) -> None:
    database.execute("CREATE TABLE orders (a INT)", "CREATE VIEW recent AS SELECT * FROM orders")
    for name, part in (("absent", "no table 'absent'"), ("x*", r"no table 'x\*'"), ("recent", "is a view")):
        with pytest.raises(ConfigError, match=part):
            load_tables(session, database.name, included=("orders", name))
    with pytest.raises(ConfigError, match="spells it 'orders'"):
        load_tables(session, database.name, included=("ORDERS",))


def test_an_empty_database_has_no_tables(database: Database, session: Connection) -> None:
    assert load_tables(session, database.name) == []


def test_engine_and_row_estimate_are_the_servers(database: Database, session: Connection) -> None:
    database.execute(
        "CREATE TABLE flat (a INT) ENGINE = MyISAM",
        "INSERT INTO flat VALUES (1), (2), (3)",
        "CREATE TABLE full_of_rows (a INT PRIMARY KEY)",
        "INSERT INTO full_of_rows VALUES (1), (2), (3)",
        "ANALYZE TABLE full_of_rows",
    )
    flat, full = load_tables(session, database.name)
    assert (flat.engine, flat.transactional, flat.row_estimate) == ("MyISAM", False, 3)
    assert (full.engine, full.transactional, full.row_estimate) == ("InnoDB", True, 3)


def test_the_reference_system_of_a_geometry_is_known(database: Database, session: Connection) -> None:
    if database.flavor == "mysql":
        database.execute("CREATE TABLE t (free POINT, earth POINT NOT NULL SRID 4326)")
        assert [column.srid for column in only(session, database).columns] == [None, 4326]
    else:
        database.execute("CREATE TABLE t (free POINT, earth POINT REF_SYSTEM_ID = 4326)")
        assert only(session, database).columns[1].srid == 4326


def test_foreign_keys_that_change_other_rows_are_found_by_any_reader(
    database: Database, session: Connection
) -> None:
    database.execute(
        "CREATE TABLE parent (id INT PRIMARY KEY)",
        "CREATE TABLE a (id INT PRIMARY KEY, p INT, CONSTRAINT fk_a FOREIGN KEY (p) REFERENCES parent (id)"
        " ON DELETE CASCADE)",
        "CREATE TABLE b (id INT PRIMARY KEY, p INT, CONSTRAINT fk_b FOREIGN KEY (p) REFERENCES parent (id)"
        " ON UPDATE CASCADE ON DELETE SET NULL)",
        "CREATE TABLE c (id INT PRIMARY KEY, ` ON DELETE CASCADE` INT, CONSTRAINT fk_c"
        " FOREIGN KEY (` ON DELETE CASCADE`) REFERENCES parent (id))",
        f"CREATE USER IF NOT EXISTS {database.name[:20]}",
        f"GRANT SELECT ON {database.name}.* TO {database.name[:20]}",
    )
    text = database.url.replace("root@", f"{database.name[:20]}@")
    reader = SourceEndpoint(Settings(mysql_connection_string=SecretStr(text))).connect(purpose="a test")
    found = [
        (key.table, key.name, key.referenced, key.delete_rule)
        for key in foreign_keys_with_cascade(session, database.name)
    ]
    assert found == [("a", "fk_a", "parent", "CASCADE"), ("b", "fk_b", "parent", "SET NULL")]
    (_, key_b) = foreign_keys_with_cascade(reader, database.name)
    assert key_b == ForeignKey("b", "fk_b", "parent", "CASCADE", "SET NULL")
    assert len(load_tables(reader, database.name)) == 4
    reader.close()
    database.execute(f"DROP USER {database.name[:20]}")


def test_reading_the_catalogue_takes_a_fixed_number_of_queries(
    database: Database, session: Connection
) -> None:
    def queries() -> int:
        with session.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Questions'")
            return int(cursor.fetchall()[0][1])

    counts = []
    for number in (1, 30):
        database.execute(*(f"CREATE TABLE t_{number}_{n} (a INT PRIMARY KEY, b INT)" for n in range(number)))
        before = queries()
        load_tables(session, database.name)
        counts.append(queries() - before)
    assert counts[0] == counts[1]


def test_a_table_whose_lock_is_not_granted_is_not_left_out(mariadb_server: Server) -> None:
    """MariaDB answers without it, and warns: taken for the whole, the table would count as dropped."""
    database = create_database(mariadb_server)
    database.execute("CREATE TABLE a_new (id INT PRIMARY KEY)", "CREATE TABLE items (id INT PRIMARY KEY)")
    settings = Settings(mysql_connection_string=SecretStr(database.url), lock_wait_seconds=1)
    with (
        closing(SourceEndpoint(settings).connect(purpose="a test")) as asking,
        closing(database.connect(autocommit=False)) as reading,
        reading.cursor() as cursor,
    ):
        cursor.execute("SELECT * FROM items")
        swapping = threading.Thread(
            target=database.execute, args=("RENAME TABLE items TO retired, a_new TO items",)
        )
        swapping.start()
        try:
            # It has one of both names, and waits for the other.
            wait_until(lambda: waiting_for_a_lock(database), "the rename waits")
            with pytest.raises(SourceUnavailableError, match="Lock wait timeout"):
                load_tables(asking, database.name)
        finally:
            reading.rollback()
            swapping.join()
        assert [table.name for table in load_tables(asking, database.name)] == ["items", "retired"]
