"""What the server puts where a statement says nothing: collations of the schema and of character sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pymysql

from cdc.source.server import Flavor, Version, character_set_name, flavor_and_version
from cdc.source.translation import translate


@dataclass(frozen=True, slots=True)
class SourceDefaults:
    """Defaults of one server and schema at one moment.

    `schema_collation` is that of tables which name none; `default_collations` gives a character set's own;
    `character_sets` a collation's character set. Names are those of information_schema, utf8mb3 for utf8.
    """

    flavor: Flavor
    version: Version
    schema_collation: str
    default_collations: Mapping[str, str]
    character_sets: Mapping[str, str]

    @property
    def prints_widths(self) -> bool:
        """Whether COLUMN_TYPE shows the display width of integers (MySQL 8.0.19 release notes)."""
        return self.flavor == "mariadb" or self.version < (8, 0, 19)


def load_defaults(connection: pymysql.Connection, database: str) -> SourceDefaults:
    """The defaults of `database` as they are now. Raises SourceError."""
    flavor, version = flavor_and_version(connection.get_server_info())
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s",
                (database,),
            )
            schema = cursor.fetchall()
            cursor.execute(
                "SELECT CHARACTER_SET_NAME, DEFAULT_COLLATE_NAME FROM information_schema.CHARACTER_SETS"
            )
            defaults = {character_set_name(str(name)): str(own) for name, own in cursor.fetchall()}
            cursor.execute("SELECT COLLATION_NAME, CHARACTER_SET_NAME FROM information_schema.COLLATIONS")
            character_sets = {
                str(name): character_set_name(str(owner)) for name, owner in cursor.fetchall() if owner
            }
    except pymysql.err.Error as error:
        raise translate(error, doing="reading the server's collations") from error
    collation = str(schema[0][0]) if schema else ""
    return SourceDefaults(flavor, version, collation, defaults, character_sets)
