"""How `duckling validate` prints what was found."""

from __future__ import annotations

from typing import Any

from cdc.cli.output import print_table


def print_validation(body: dict[str, Any]) -> None:
    """The answer of `GET /sync/validate`: a row a table, then the first rows that differ."""
    print_table(
        ("table", "source", "copy", "equal"),
        (
            (each["table"], each["mysqlCount"], each["duckdbCount"], _verdict(each))
            for each in body["results"]
        ),
    )
    for each in body["mismatches"]:
        if "error" in each:
            print(f"{each['table']}: {each['error']}")
        for row in each.get("firstDifferences", ()):
            key = ", ".join(f"{name}={value}" for name, value in row["key"].items()) or "a row without a key"
            print(f"{each['table']}: {row['kind']}: {key}")
    if not body["atOnePosition"]:
        print("no binary log ties both sides together: rows written meanwhile may count as differences")
    print(f"{body['matchingTables']} of {body['totalTables']} tables match")


def _verdict(each: dict[str, Any]) -> str:
    if each["matches"]:
        return "yes"
    if "error" in each:
        return "not compared"
    found = [f"{each[kind]} {kind}" for kind in ("missing", "extra", "changed") if each.get(kind)]
    least = "at least " if each.get("complete") is False else ""
    told = f"NO: {least}{', '.join(found)}" if found else "NO"
    repair = each.get("repair")
    if repair is None:
        return told
    return told + ("; is copied again" if repair["copiedAgain"] else f"; repaired {repair['rows']}")
