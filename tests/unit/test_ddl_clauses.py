"""What exactly a statement does, clause by clause, and when it is not said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.schema import NameCase
from cdc.source.ddl import Alter, Create, Rename, SchemaChange, read_statement
from cdc.source.ddl.alterations import (
    FIRST,
    AddCascadingKey,
    AddColumn,
    AddPrimaryKey,
    Alteration,
    ChangeColumn,
    DropColumn,
    DropPrimaryKey,
    RenameColumn,
    RenameTable,
    SetDefaultCharacterSet,
    SetEngine,
    SetVisibility,
)
from cdc.source.ddl.columns import ColumnDefinition, Default
from cdc.source.ddl.creation import TableDefinition
from cdc.source.ddl.lexer import ANSI_QUOTES, NO_BACKSLASH_ESCAPES, UnreadableStatementError, lex
from cdc.source.ddl.names import TableName
from cdc.source.ddl.redaction import redacted

ORACLE = 1 << 9
EMPTY_STRING_IS_NULL = 1 << 33


def read(statement: str, sql_mode: int = 0) -> SchemaChange:
    change = read_statement(statement, "shop", "shop", NameCase(), sql_mode)
    assert change is not None
    return change


def clauses(text: str, sql_mode: int = 0) -> tuple[Alteration, ...]:
    detail = read("ALTER TABLE t " + text, sql_mode).detail
    assert isinstance(detail, Alter)
    return detail.alterations


INT = ColumnDefinition("c", "int")

CLAUSES: dict[str, tuple[Alteration, ...]] = {
    "ADD c INT": (AddColumn(INT),),
    "ADD COLUMN c INT FIRST": (AddColumn(INT, FIRST),),
    "ADD COLUMN `c` INT AFTER `from`": (AddColumn(INT, "from"),),
    "ADD IF NOT EXISTS c INT": (AddColumn(INT, None, if_not_exists=True),),
    "ADD (c INT, `d e` DATE)": (AddColumn(INT), AddColumn(ColumnDefinition("d e", "date"))),
    "ADD first INT": (AddColumn(ColumnDefinition("first", "int")),),
    "ADD c INT PRIMARY KEY": (
        AddColumn(ColumnDefinition("c", "int", primary_key=True)),
        AddPrimaryKey(("c",)),
    ),
    "ADD c INT REFERENCES o (id) ON UPDATE NO ACTION ON DELETE SET NULL": (
        AddColumn(ColumnDefinition("c", "int", cascading=True)),
        AddCascadingKey(),
    ),
    "DROP c, DROP COLUMN IF EXISTS d": (DropColumn("c"), DropColumn("d", if_exists=True)),
    "RENAME COLUMN c TO d": (RenameColumn("c", "d"),),
    "CHANGE c c INT AFTER d": (ChangeColumn("c", INT, "d"),),
    "MODIFY COLUMN c INT": (ChangeColumn("c", INT),),
    "ALTER c SET INVISIBLE": (SetVisibility("c", invisible=True),),
    "ALTER COLUMN c SET DEFAULT (1 + 2), ALTER c DROP DEFAULT": (),
    "ADD CONSTRAINT `x` PRIMARY KEY USING BTREE (a(3) DESC, `b`) COMMENT 'k'": (AddPrimaryKey(("a", "b")),),
    "DROP PRIMARY KEY": (DropPrimaryKey(),),
    "DROP INDEX `primary`": (DropPrimaryKey(),),
    "DROP INDEX i, DROP KEY k, DROP FOREIGN KEY f, DROP CHECK c": (),
    "ADD UNIQUE INDEX u (a, b(10)), ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES x.y (b) ON DELETE RESTRICT": (),
    "ADD FOREIGN KEY (a) REFERENCES y (b) ON DELETE CASCADE": (AddCascadingKey(),),
    "ADD CONSTRAINT CHECK (a IN ('),', 2))": (),
    "DEFAULT CHARACTER SET = latin1 COLLATE latin1_bin": (SetDefaultCharacterSet("latin1", "latin1_bin"),),
    "COLLATE=utf8mb4_bin": (SetDefaultCharacterSet(None, "utf8mb4_bin"),),
    "ENGINE = InnoDB, AUTO_INCREMENT=5, COMMENT='DROP c'": (SetEngine("innodb"),),
    "RENAME TO other.u": (RenameTable(TableName("u", ours=False)),),
    "RENAME shop.u": (RenameTable(TableName("u", ours=True)),),
    "RENAME INDEX a TO b, ALGORITHM=INPLACE, LOCK=NONE": (),
    "PARTITION BY HASH(id) PARTITIONS 4": (),
    "REORGANIZE PARTITION p INTO (PARTITION q VALUES LESS THAN (5))": (),
}

UNCLEAR = [
    "ADD c GEOMETRY",
    "ADD c SERIAL",
    "ADD c INT WITHOUT SYSTEM VERSIONING",
    "ADD SYSTEM VERSIONING",
    "ADD c VARCHAR(3) CHARACTER SET binary",
    "DROP PARTITION p",
    "TRUNCATE PARTITION p",
    "EXCHANGE PARTITION p WITH TABLE u",
    "CONVERT TO CHARACTER SET latin1",
    "CONVERT PARTITION p TO TABLE u",
    "ORDER BY a, b",
    "DISCARD TABLESPACE",
    "DROP CONSTRAINT c",
    "UNION = (a, b)",
    "CONNECTION = 'mysql://u:p@h/d'",
    "ADD c INT,, DROP d",
    "ADD",
    "SOMETHING NEW",
]


@pytest.mark.parametrize("text", CLAUSES, ids=[text[:50] for text in CLAUSES])
def test_the_clauses_of_an_alter_are_read(text: str) -> None:
    assert clauses(text) == CLAUSES[text]


@pytest.mark.parametrize("text", UNCLEAR)
def test_what_is_not_known_makes_the_whole_statement_unclear_and_still_names_the_table(text: str) -> None:
    change = read(f"ALTER TABLE t ADD x INT, {text}")
    assert change.detail is None
    assert change.tables[0] == "t"


DEFINITIONS = {
    "c int unsigned zerofill": ColumnDefinition("c", "int", unsigned=True, zerofill=True),
    "c INTEGER(5) NOT NULL DEFAULT -1": ColumnDefinition(
        "c", "int", (5,), nullable=False, default=Default("number", "-1")
    ),
    "c BOOL DEFAULT TRUE": ColumnDefinition("c", "tinyint", (1,), default=Default("boolean", "1")),
    "c DOUBLE PRECISION NULL": ColumnDefinition("c", "double", nullable=True),
    "c NUMERIC(10, 2) DEFAULT 1.50": ColumnDefinition("c", "decimal", (10, 2), default=Default("number", "1.50")),
    "c CHARACTER VARYING(9) CHARSET latin1": ColumnDefinition("c", "varchar", (9,), character_set="latin1"),
    "c ENUM('a,b', 'it''s' 'x') COLLATE utf8mb4_bin": ColumnDefinition(
        "c", "enum", members=("a,b", "it'sx"), collation="utf8mb4_bin"
    ),
    "c TEXT COMMENT 'a, b' DEFAULT 'x\\'y\\n'": ColumnDefinition("c", "text", default=Default("string", "x'y\n")),
    "c BIT(4) DEFAULT b'0101'": ColumnDefinition("c", "bit", (4,), default=Default("bits", "0101")),
    "c TIMESTAMP(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)": ColumnDefinition(
        "c", "timestamp", (3,), default=Default("expression")
    ),
    "c JSON DEFAULT (JSON_ARRAY(')'))": ColumnDefinition("c", "json", default=Default("expression")),
    "c INT GENERATED ALWAYS AS (a + (b)) STORED": ColumnDefinition("c", "int", generated=True),
    "c INT AS (a) PERSISTENT INVISIBLE": ColumnDefinition("c", "int", generated=True, invisible=True),
    "c INT AUTO_INCREMENT UNIQUE KEY": ColumnDefinition("c", "int", auto_increment=True),
}  # fmt: skip


@pytest.mark.parametrize("text", DEFINITIONS)
def test_column_definitions_are_read(text: str) -> None:
    assert clauses(f"ADD {text} FIRST, DROP z") == (AddColumn(DEFINITIONS[text], FIRST), DropColumn("z"))


def test_quotes_and_backslashes_are_read_as_the_session_means_them() -> None:
    text = "ADD \"c\" VARCHAR(9) DEFAULT 'a\\'"
    [added] = clauses(text, ANSI_QUOTES | NO_BACKSLASH_ESCAPES)
    assert added == AddColumn(ColumnDefinition("c", "varchar", (9,), default=Default("string", "a\\")))
    assert read("ALTER TABLE t " + text).detail is None


@pytest.mark.parametrize("sql_mode", [ORACLE, EMPTY_STRING_IS_NULL])
def test_modes_of_other_dialects_make_every_statement_unclear(sql_mode: int) -> None:
    assert read("ALTER TABLE t ADD c INT", sql_mode).detail is None


def test_comments_are_passed_over_and_those_that_the_server_runs_are_read() -> None:
    assert clauses("/* DROP a */ ADD c /*!80000 INT */ -- DROP b\n # DROP d") == (AddColumn(INT),)
    assert read("ALTER TABLE t ADD c INT /*M!100000 , DROP d */").detail is None


def test_a_rename_tells_its_pairs_in_order() -> None:
    detail = read("RENAME TABLE a TO `b`, other.c TO a, `a` TO other.`d`").detail
    assert detail == Rename(
        (
            (TableName("a", ours=True), TableName("b", ours=True)),
            (TableName("c", ours=False), TableName("a", ours=True)),
            (TableName("a", ours=True), TableName("d", ours=False)),
        )
    )


def test_a_created_table_tells_columns_key_and_defaults() -> None:
    detail = read(
        "CREATE TABLE t (c INT, `key` INT NOT NULL, KEY k (c), CONSTRAINT x UNIQUE (c), PRIMARY KEY (`key`, c),"
        " CHECK (c > 0)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin COMMENT='(' PARTITION BY KEY(c)"
    ).detail
    columns = (INT, ColumnDefinition("key", "int", nullable=False))
    definition = TableDefinition(columns, ("key", "c"), "utf8mb4", "utf8mb4_bin", "innodb")
    assert detail == Create(TableName("t", ours=True), definition)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE t (c INT) AS SELECT 1 AS c",
        "CREATE TABLE t (c INT) IGNORE SELECT 1 AS c",
        "CREATE TABLE t SELECT 1 AS c",
        "CREATE TABLE t (c INT) START TRANSACTION",
        "CREATE TABLE t (c INT) PARTITION BY HASH (c) SELECT 1 AS c",
        "CREATE TABLE t (KEY (a)) SELECT 1 AS a",
        "CREATE TABLE t (c INT) WITH SYSTEM VERSIONING",
        "CREATE TABLE t (c INT) ENGINE=FEDERATED CONNECTION='x'",
    ],
)
def test_a_created_table_with_more_than_its_definition_is_unclear(text: str) -> None:
    assert read(text).detail is None


def test_the_model_of_a_created_table_is_told() -> None:
    ours = Create(TableName("t", ours=True), TableName("m", ours=True))
    assert read("CREATE TABLE t LIKE m").detail == ours
    assert read("CREATE TABLE IF NOT EXISTS t (LIKE shop.m)").detail == ours
    assert read("CREATE TABLE t LIKE other.m").detail == Create(
        TableName("t", ours=True), TableName("m", ours=False)
    )


def test_dropping_the_index_primary_drops_the_key_and_any_other_means_nothing() -> None:
    assert read("DROP INDEX `PRIMARY` ON t").detail == Alter(TableName("t", ours=True), (DropPrimaryKey(),))
    assert read_statement("DROP INDEX i ON t", "shop", "shop", NameCase()) is None


@pytest.mark.parametrize("text", ["ALTER DATABASE shop CHARSET latin1", "ALTER SCHEMA COLLATE utf8mb4_bin"])
def test_new_defaults_of_the_schema_are_noticed(text: str) -> None:
    assert read(text).kind == "database"
    assert read_statement("ALTER DATABASE other CHARSET latin1", "shop", "shop", NameCase()) is None


def test_a_shown_statement_has_members_but_no_other_strings_and_no_comments() -> None:
    text = "ALTER  TABLE t /* pw */ ADD c ENUM('a', 'b') DEFAULT 'a' COMMENT \"x\", ADD d INT DEFAULT x'ff' -- end"
    assert (
        redacted(text) == "ALTER TABLE t ADD c ENUM('a', 'b') DEFAULT '…' COMMENT '…', ADD d INT DEFAULT '…'"
    )
    assert redacted("ALTER TABLE t COMMENT 'open") == "ALTER …"


@given(st.text(), st.sampled_from([0, ANSI_QUOTES, NO_BACKSLASH_ESCAPES]))
def test_a_string_that_is_quoted_as_sql_wants_it_is_read_back(text: str, sql_mode: int) -> None:
    quoted = text.replace("'", "''")
    if not sql_mode & NO_BACKSLASH_ESCAPES:
        quoted = quoted.replace("\\", "\\\\")
    [token] = lex(f"'{quoted}'", sql_mode).tokens
    assert (token.kind, token.text) == ("string", text)


@given(st.text("abc `'\"\\/*!-#\n();,.0x1_M$é"), st.sampled_from([0, ANSI_QUOTES, NO_BACKSLASH_ESCAPES]))
def test_the_tokens_of_any_text_lie_side_by_side_in_it(text: str, sql_mode: int) -> None:
    try:
        tokens = lex(text, sql_mode).tokens
    except UnreadableStatementError:
        return
    places = [place for token in tokens for place in (token.start, token.end)]
    assert places == sorted(places)
    assert all(token.start < token.end <= len(text) for token in tokens)
