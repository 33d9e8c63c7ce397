"""Changes that are easily applied almost right, by name: what goes before, and the change with rows behind it.

`{t}` stands for the table's name. A statement that begins with `?` may be refused by a server.
"""

from __future__ import annotations

MADE = "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(20), n INT)"
FILLED = "INSERT INTO {t} VALUES (1, 'one', 10), (2, '', NULL), (3, NULL, -3)"
SPELLINGS = (
    "VARCHAR(20) DEFAULT X'C3A9'",
    "INT DEFAULT 0x1F",
    "BIT(9) DEFAULT b'100000001'",
    "DECIMAL(8,2) DEFAULT 1.5e2",
    "INT DEFAULT '007'",
    "BOOLEAN DEFAULT TRUE",
    "VARCHAR(20) DEFAULT _latin1 X'E9'",
    "FLOAT DEFAULT 0.1",
    "CHAR(5) DEFAULT 'x  '",
    "INT DEFAULT -5",
    "INT DEFAULT - 5",
    "INT DEFAULT +5",
    "VARCHAR(9) DEFAULT 'it''s'",
    'VARCHAR(9) DEFAULT "double"',
    "VARCHAR(30) DEFAULT 'a' 'b'",
    "VARCHAR(30) DEFAULT N'né'",
    "VARCHAR(30) DEFAULT 'a\\nb\\%c'",
    "BINARY(4) DEFAULT 'ab'",
    "ENUM('a','b') DEFAULT 'B'",
    "ENUM('a','b') DEFAULT 2",
    "ENUM('a','b') NOT NULL",
    "SET('a','b') DEFAULT 'b,a'",
    "DATE DEFAULT '2024-2-9'",
    "DATE DEFAULT 20240229",
    "DATETIME(1) DEFAULT '2024-02-29 10:11:12.36'",
    "TIMESTAMP(3) NULL DEFAULT '2024-02-29 10:11:12.36'",
    "TIME DEFAULT '1:2'",
    "YEAR DEFAULT 24",
    "INT DEFAULT 2.5",
    "TINYINT DEFAULT '12 '",
    "VARCHAR(9) DEFAULT 12",
    "DECIMAL(4,1) DEFAULT 1.25",
    "DECIMAL(4,1) UNSIGNED ZEROFILL DEFAULT 7",
    "DOUBLE DEFAULT '1e3'",
    "BIGINT UNSIGNED DEFAULT 18446744073709551615",
    "JSON DEFAULT ('[1]')",
    "TEXT DEFAULT ('text')",
    "INT NULL DEFAULT NULL",
    "INT SERIAL DEFAULT VALUE",
    "INT UNIQUE",
    "VARCHAR(9) CHARACTER SET utf16 COLLATE utf16_bin DEFAULT 'é'",
    "CHAR(3) BYTE DEFAULT 'a'",
    "NATIONAL VARCHAR(5) DEFAULT 'n'",
    "DOUBLE PRECISION DEFAULT 1",
    "DEC(5) DEFAULT 1.5",
    "LONG VARCHAR",
    "INT(3) UNSIGNED ZEROFILL DEFAULT 7",
)
"""Columns with defaults, as ADD takes them; a server may refuse some."""

TRAPS: dict[str, tuple[list[str], list[str]]] = {
    # name: (table and rows before the change, the change and rows behind it)
    "default_in_the_time_zone_of_the_session": (
        [MADE, FILLED],
        [
            "SET time_zone = '+05:30'",
            "ALTER TABLE {t} ADD c TIMESTAMP NOT NULL DEFAULT '2024-03-01 00:15:00'",
        ],
    ),
    "timestamp_to_datetime_in_the_time_zone_of_the_session": (
        [
            "CREATE TABLE {t} (id INT PRIMARY KEY, c TIMESTAMP NULL)",
            "INSERT INTO {t} VALUES (1, '2024-03-01 12:00:00')",
        ],
        [
            "SET time_zone = '-08:00'",
            "ALTER TABLE {t} MODIFY c DATETIME",
            "INSERT INTO {t} VALUES (2, '2024-01-01')",
        ],
    ),
    "default_that_the_statement_computes": (
        [MADE, FILLED],
        [
            "ALTER TABLE {t} ADD c DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6)",
            "?ALTER TABLE {t} ADD d DOUBLE DEFAULT (RAND(3))",
            "ALTER TABLE {t} ADD e VARCHAR(40) DEFAULT (CONCAT('a', 1 + 1))",
        ],
    ),
    "implicit_defaults": (
        [MADE, FILLED],
        [
            "SET sql_mode = ''",
            "ALTER TABLE {t} ADD a INT NOT NULL, ADD b VARCHAR(9) NOT NULL, ADD c DATETIME NOT NULL,"
            " ADD d ENUM('x','y') NOT NULL, ADD e SET('x','y') NOT NULL, ADD f TIME NOT NULL, ADD g YEAR NOT NULL,"
            " ADD h DECIMAL(5,2) NOT NULL, ADD i BLOB NOT NULL, ADD j BIT(3) NOT NULL, ADD k BINARY(3) NOT NULL",
        ],
    ),
    "defaults_in_every_spelling": (
        [MADE, FILLED],
        [f"?ALTER TABLE {{t}} ADD c{number} {spelled}" for number, spelled in enumerate(SPELLINGS)],
    ),
    "values_that_are_clamped": (
        [MADE, "INSERT INTO {t} VALUES (1, 'abcdefgh', 300), (2, '  pad ', -300)"],
        ["SET sql_mode = ''", "ALTER TABLE {t} MODIFY n TINYINT UNSIGNED NOT NULL, MODIFY v CHAR(3)"],
    ),
    "enum_reordered_extended_and_renamed": (
        [
            "CREATE TABLE {t} (id INT PRIMARY KEY, e ENUM('a','b','c'), s SET('x','y'))",
            "INSERT INTO {t} VALUES (1, 'a', 'x'), (2, 'c', 'x,y'), (3, NULL, '')",
        ],
        [
            "ALTER TABLE {t} MODIFY e ENUM('c','b','a'), MODIFY s SET('y','x','z')",
            "INSERT INTO {t} VALUES (4, 'c', 'z,y')",
            "ALTER TABLE {t} MODIFY e ENUM('c','b','a','d') DEFAULT 'd'",
            "INSERT INTO {t} (id) VALUES (5)",
        ],
    ),
    "enum_to_number_and_back": (
        [
            "CREATE TABLE {t} (id INT PRIMARY KEY, e ENUM('3','2','1'))",
            "INSERT INTO {t} VALUES (1, '3'), (2, '1')",
        ],
        [
            "ALTER TABLE {t} MODIFY e INT",
            "ALTER TABLE {t} MODIFY e VARCHAR(9)",
            "UPDATE {t} SET e = 'x' WHERE id = 1",
        ],
    ),
    "character_set_that_loses_characters": (
        [MADE, "INSERT INTO {t} VALUES (1, 'é☃', 1)"],
        ["SET sql_mode = ''", "ALTER TABLE {t} CONVERT TO CHARACTER SET latin1"],
    ),
    "character_set_by_way_of_bytes": (
        [
            "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(20) CHARACTER SET latin1)",
            "INSERT INTO {t} VALUES (1, 'Ã©')",
        ],
        [
            "ALTER TABLE {t} MODIFY v VARBINARY(60)",
            "ALTER TABLE {t} MODIFY v VARCHAR(20) CHARACTER SET utf8mb4",
        ],
    ),
    "default_character_set_of_the_table_for_new_columns": (
        [MADE, FILLED],
        [
            "ALTER TABLE {t} DEFAULT CHARACTER SET latin1",
            "ALTER TABLE {t} ADD c VARCHAR(9) DEFAULT 'é'",
            "INSERT INTO {t} VALUES (5, 'x', 1, 'è')",
        ],
    ),
    "columns_that_change_places": (
        [MADE, FILLED],
        [
            "ALTER TABLE {t} RENAME COLUMN v TO n, RENAME COLUMN n TO v",
            "INSERT INTO {t} (id, v, n) VALUES (7, 7, 'seven')",
        ],
    ),
    "a_name_that_is_dropped_and_added_in_one_statement": (
        [MADE, FILLED],
        ["ALTER TABLE {t} DROP COLUMN n, ADD COLUMN n INT DEFAULT 99", "INSERT INTO {t} (id) VALUES (8)"],
    ),
    "a_column_after_one_that_is_renamed_in_the_same_statement": (
        [MADE, FILLED],
        [
            "ALTER TABLE {t} CHANGE v w VARCHAR(20), ADD c INT DEFAULT 1 AFTER id",
            "INSERT INTO {t} (id, w) VALUES (8, 'w')",
        ],
    ),
    "one_name_dropped_and_made_again_twice": (
        [MADE, FILLED],
        [
            "DROP TABLE {t}",
            "CREATE TABLE {t} (v INT, id CHAR(9) PRIMARY KEY)",
            "INSERT INTO {t} VALUES (1, 'a')",
            "DROP TABLE {t}",
            "CREATE TABLE {t} (v INT)",
            "INSERT INTO {t} VALUES (1), (1)",
        ],
    ),
    "key_dropped_and_equal_rows": (
        [MADE, FILLED],
        [
            "ALTER TABLE {t} DROP PRIMARY KEY",
            "INSERT INTO {t} VALUES (1, 'one', 10)",
            "DELETE FROM {t} WHERE id = 1 LIMIT 1",
        ],
    ),
    "key_moved_to_a_column_whose_rows_then_swap": (
        [MADE, FILLED],
        [
            "ALTER TABLE {t} DROP PRIMARY KEY, ADD COLUMN k INT NOT NULL DEFAULT 0",
            "UPDATE {t} SET k = 10 - id",
            "ALTER TABLE {t} ADD PRIMARY KEY (k)",
            "UPDATE {t} SET k = k + 1 ORDER BY k DESC",
            "UPDATE {t} SET id = 5",
        ],
    ),
    "numbered_key_on_rows_that_are_there": (
        ["CREATE TABLE {t} (v INT)", "INSERT INTO {t} VALUES (3), (1), (2), (1)"],
        [
            "ALTER TABLE {t} ADD id INT AUTO_INCREMENT PRIMARY KEY FIRST",
            "INSERT INTO {t} (v) VALUES (9)",
            "DELETE FROM {t} WHERE id = 2",
        ],
    ),
    "stored_column_computed_anew": (
        [
            "CREATE TABLE {t} (id INT PRIMARY KEY, v INT, g INT AS (v + 1) STORED)",
            "INSERT INTO {t} (id, v) VALUES (1, 5)",
        ],
        [
            "ALTER TABLE {t} MODIFY g INT AS (v * 2) STORED",
            "INSERT INTO {t} (id, v) VALUES (2, 6)",
            "ALTER TABLE {t} ADD h VARCHAR(9) AS (CONCAT(v, '!')) VIRTUAL AFTER id",
            "UPDATE {t} SET v = 7",
        ],
    ),
    "partitions_dropped_emptied_and_exchanged": (
        [
            "CREATE TABLE {t} (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id)"
            " (PARTITION p1 VALUES LESS THAN (10), PARTITION p2 VALUES LESS THAN (20),"
            " PARTITION p3 VALUES LESS THAN (30), PARTITION p4 VALUES LESS THAN (40))",
            "INSERT INTO {t} VALUES (1, 1), (11, 11), (21, 21), (31, 31)",
            "CREATE TABLE {t}_x (id INT PRIMARY KEY, v INT)",
            "INSERT INTO {t}_x VALUES (25, 25), (26, 26)",
        ],
        [
            "ALTER TABLE {t} DROP PARTITION p1",
            "ALTER TABLE {t} TRUNCATE PARTITION p2",
            "ALTER TABLE {t} EXCHANGE PARTITION p3 WITH TABLE {t}_x",
            "ALTER TABLE {t} REORGANIZE PARTITION p4 INTO"
            " (PARTITION p4a VALUES LESS THAN (35), PARTITION p4b VALUES LESS THAN (40))",
            "UPDATE {t} SET v = v + 1",
            "UPDATE {t}_x SET v = v + 1",
        ],
    ),
    "made_from_rows_and_made_alike": (
        [MADE, FILLED],
        [
            "CREATE TABLE {t}_like LIKE {t}",
            "INSERT INTO {t}_like SELECT * FROM {t}",
            "CREATE TABLE {t}_rows (PRIMARY KEY (id)) AS SELECT id, UPPER(v) AS w, n * 1.5 AS m FROM {t}",
            "UPDATE {t}_rows SET w = 'x' WHERE id = 1",
            "ALTER TABLE {t}_like ADD c INT DEFAULT 4 FIRST",
        ],
    ),
    "ring_of_names": (
        [
            MADE,
            FILLED,
            "CREATE TABLE {t}_b (x INT)",
            "INSERT INTO {t}_b VALUES (1)",
            "CREATE TABLE {t}_c (y CHAR(3) PRIMARY KEY)",
        ],
        [
            "RENAME TABLE {t} TO {t}_tmp, {t}_b TO {t}, {t}_c TO {t}_b, {t}_tmp TO {t}_c",
            "INSERT INTO {t} VALUES (2)",
            "INSERT INTO {t}_b VALUES ('abc')",
            "UPDATE {t}_c SET n = 1",
            "RENAME TABLE {t} TO {t}_tmp, {t}_b TO {t}, {t}_tmp TO {t}_b",
            "INSERT INTO {t} VALUES ('xyz')",
        ],
    ),
    "renamed_altered_and_renamed_back": (
        [MADE, FILLED],
        [
            "ALTER TABLE {t} ADD c INT DEFAULT 1, RENAME TO {t}_r",
            "INSERT INTO {t}_r VALUES (9, 'r', 1, 1)",
            "ALTER TABLE {t}_r DROP COLUMN v, RENAME {t}",
            "UPDATE {t} SET n = 5",
        ],
    ),
    "widened_key_and_signs": (
        ["CREATE TABLE {t} (id INT PRIMARY KEY, v INT)", "INSERT INTO {t} VALUES (2147483647, 1), (-1, 2)"],
        [
            "ALTER TABLE {t} MODIFY id BIGINT, MODIFY v BIGINT UNSIGNED",
            "INSERT INTO {t} VALUES (9223372036854775807, 18446744073709551615)",
            "DELETE FROM {t} WHERE id = -1",
        ],
    ),
    "precision_of_times_and_decimals": (
        [
            "CREATE TABLE {t} (id INT PRIMARY KEY, a DATETIME(6), b TIME(3), c DECIMAL(10,4), d FLOAT)",
            "INSERT INTO {t} VALUES (1, '2024-02-29 23:59:59.999999', '23:59:59.999', 1.23456, 16777217)",
        ],
        ["ALTER TABLE {t} MODIFY a DATETIME, MODIFY b TIME, MODIFY c DECIMAL(12,2), MODIFY d DOUBLE"],
    ),
    "padding_of_binary_and_character_types": (
        [
            "CREATE TABLE {t} (id INT PRIMARY KEY, a BINARY(4), b CHAR(6), c VARCHAR(6))",
            "INSERT INTO {t} VALUES (1, 'ab', 'x', 'y  ')",
        ],
        ["ALTER TABLE {t} MODIFY a VARBINARY(9), MODIFY b VARCHAR(9), MODIFY c CHAR(6)"],
    ),
    "a_comment_in_the_column": (
        [MADE, FILLED],
        [
            "ALTER TABLE {t} MODIFY n INT COMMENT 'RENAME TO x, DROP COLUMN v' AFTER id",
            "UPDATE {t} SET n = 4",
        ],
    ),
}
MARIADB_TRAPS: dict[str, tuple[list[str], list[str]]] = {
    "if_exists_everywhere": (
        [MADE, FILLED],
        [
            "ALTER TABLE {t} ADD COLUMN IF NOT EXISTS v INT, ADD COLUMN IF NOT EXISTS c INT DEFAULT 2,"
            " DROP COLUMN IF EXISTS nothing, CHANGE COLUMN IF EXISTS nope nope2 INT",
            "CREATE OR REPLACE TABLE {t}_r (a INT)",
            "INSERT INTO {t}_r VALUES (1)",
            "CREATE OR REPLACE TABLE {t}_r (b CHAR(3))",
            "INSERT INTO {t}_r VALUES ('b')",
            "RENAME TABLE IF EXISTS {t}_none TO {t}_n, {t} TO {t}_new",
            "ALTER TABLE IF EXISTS {t}_none ADD x INT",
        ],
    ),
    "default_that_is_a_function": (
        [MADE, FILLED],
        ["ALTER TABLE {t} ADD c VARCHAR(36) DEFAULT (UUID())"],
    ),
    "drop_of_which_a_part_is_missing": (
        [MADE, FILLED],
        [
            "CREATE TABLE {t}_2 LIKE {t}",
            "INSERT INTO {t}_2 VALUES (1, 'x', 1)",
            "DROP TABLE IF EXISTS {t}_none, {t}_2",
        ],
    ),
}
