"""Tables to begin with, and to create anew; `{t}` stands for the name."""

SHAPES = (
    "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(20), n INT NOT NULL DEFAULT 5)",
    "CREATE TABLE {t} (v VARCHAR(20), n INT, at DATETIME(3))",
    "CREATE TABLE {t} (id INT NOT NULL, n INT NOT NULL, v VARCHAR(30), PRIMARY KEY (n, id))"
    " PARTITION BY RANGE (id)"
    " (PARTITION low VALUES LESS THAN (10), PARTITION mid VALUES LESS THAN (50),"
    " PARTITION high VALUES LESS THAN MAXVALUE)",
    "CREATE TABLE {t} (code CHAR(8) COLLATE utf8mb4_bin PRIMARY KEY, colour ENUM('red','green','blue'),"
    " marks SET('x','y','z'), price DECIMAL(10,2))",
    "CREATE TABLE {t} (a INT, id BIGINT UNSIGNED AUTO_INCREMENT, b JSON, PRIMARY KEY (id))",
    "CREATE TABLE {t} (id INT PRIMARY KEY, w VARCHAR(20) CHARACTER SET latin1,"
    " len INT GENERATED ALWAYS AS (CHAR_LENGTH(w)) STORED, up VARCHAR(20) GENERATED ALWAYS AS (UPPER(w)) VIRTUAL)",
    "CREATE TABLE {t} (`from` INT PRIMARY KEY, `a``b` TEXT, `d\"q` BLOB) COMMENT 'it''s'",
)

FIRST = (("one", SHAPES[0]), ("two", SHAPES[1]), ("three", SHAPES[2]))
"""The three tables of a generated test."""
