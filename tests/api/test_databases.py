"""Several databases in one service: added, changed, tested and removed while it runs."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import httpx
import orjson
import pytest

from cdc.databases import DatabaseDefinition, DatabasesFile
from cdc.errors import ConfigError
from cdc.sandbox.databases import Database, Host, create_database
from tests.api.conftest import WAIT, replicated
from tests.api.test_serve import GOOD, assert_refused, duckling, running_service
from tests.api.test_sync import done, rows
from tests.waiting import wait_until

AWAY = "mysql://nobody:hush-word@127.0.0.1:1/nothing"
PATH = "/api/databases"


@pytest.fixture
def shop(mysql_database: Database) -> Database:
    mysql_database.execute(
        "CREATE TABLE orders (id INT PRIMARY KEY, note VARCHAR(50))",
        "INSERT INTO orders VALUES (1, 'one'), (2, 'two')",
    )
    return mysql_database


@pytest.fixture
def library(mysql_server: Host) -> Iterator[Database]:
    """A second database."""
    made = create_database(mysql_server)
    made.execute("CREATE TABLE books (id INT PRIMARY KEY)", "INSERT INTO books VALUES (7), (8), (9)")
    yield made
    made.drop()


@pytest.fixture
def client(shop: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    with replicated(shop.url, tmp_path, auto_start_sync=True) as (client, pipeline):
        pipeline.wait_streaming(WAIT)
        yield client


def streams(client: httpx.Client, database: str) -> None:
    """Returns once `database` streams."""
    wait_until(
        lambda: (
            client.get("/cdc/status", params={"db": database}).json()["status"]["isRunning"]
            and not client.get("/sync/progress", params={"db": database}).json()["isRunning"]
        ),
        f"{database} streams",
    )


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}:{password}@{parts.hostname}:{parts.port}").geturl()


def test_a_database_is_added_replicated_and_removed_at_run_time(
    client: httpx.Client, library: Database, tmp_path: Path
) -> None:
    answer = client.post(
        PATH, json={"id": "library", "name": "Library", "mysqlConnectionString": library.url}
    )
    body = done(answer, 201)
    assert answer.headers["Location"] == f"{PATH}/library"
    assert body["duckdbPath"] == str((tmp_path / "library.db").resolve())
    streams(client, "library")
    assert rows_of(client, "library", "SELECT id FROM books ORDER BY id") == [[7], [8], [9]]
    library.execute("DELETE FROM books WHERE id = 8")
    done(client.post("/sync/incremental", params={"db": "library"}))
    assert rows_of(client, "library", "SELECT id FROM books ORDER BY id") == [[7], [9]]
    # the other one neither sees it nor minds it
    assert done(client.get("/tables"))["tables"] == ["orders"]
    listed = done(client.get(PATH))["databases"]
    assert [(each["id"], each["editable"], each["state"]) for each in listed] == [
        ("default", False, "streaming"),
        ("library", True, "streaming"),
    ]
    text = client.get("/metrics").text
    for name in ("default", "library"):
        assert f'duckling_pipeline_state{{database="{name}",state="streaming"}} 1.0' in text
    assert done(client.delete(f"{PATH}/library"))["fileDeleted"] is False
    assert done(client.get(f"{PATH}/library"), 404)["code"] == "DATABASE_NOT_FOUND"
    assert done(client.get("/tables", params={"db": "library"}), 404)["code"] == "DATABASE_NOT_FOUND"
    with duckdb.connect(str(tmp_path / "library.db"), read_only=True) as left:
        assert left.execute("SELECT id FROM books ORDER BY id").fetchall() == [(7,), (9,)]
    assert 'database="library"' not in client.get("/metrics").text
    assert rows(client, "SELECT count(*) FROM orders") == [[2]]


def test_a_database_has_tables_without_an_index_of_their_key_of_its_own(
    shop: Database, library: Database, tmp_path: Path
) -> None:
    """The service's setting counts where it says nothing; a list is its own, empty or not."""
    with replicated(shop.url, tmp_path, auto_start_sync=True, unindexed_tables="*") as (client, pipeline):
        pipeline.wait_streaming(WAIT)
        assert indexes(client, "default") == []
        body = {"id": "library", "mysqlConnectionString": library.url}
        assert done(client.post(PATH, json=body), 201)["unindexedTables"] is None
        streams(client, "library")
        assert indexes(client, "library") == []
        changed = {**body, "unindexedTables": []}
        assert done(client.put(f"{PATH}/library", json=changed))["unindexedTables"] == []
        streams(client, "library")
        assert indexes(client, "library") == []  # it counts when a table is copied
        done(client.post("/sync/full", params={"db": "library"}))
        assert indexes(client, "library") == ["books"]
        changed["unindexedTables"] = ["boo*"]
        done(client.put(f"{PATH}/library", json=changed))
        streams(client, "library")
        done(client.post("/sync/full", params={"db": "library"}))
        assert indexes(client, "library") == []
        library.execute("UPDATE books SET id = 10 WHERE id = 8", "INSERT INTO books VALUES (8)")
        done(client.post("/sync/incremental", params={"db": "library"}))
        assert rows_of(client, "library", "SELECT id FROM books ORDER BY id") == [[7], [8], [9], [10]]
    with replicated(shop.url, tmp_path, auto_start_sync=True) as (client, _):
        streams(client, "library")
        listed = {each["id"]: each["unindexedTables"] for each in done(client.get(PATH))["databases"]}
        assert listed == {"default": [], "library": ["boo*"]}
        library.execute(
            "CREATE TABLE bookmarks (id INT PRIMARY KEY)", "CREATE TABLE readers (id INT PRIMARY KEY)"
        )
        done(client.post("/sync/incremental", params={"db": "library"}))
        assert indexes(client, "library") == ["readers"]
        assert indexes(client, "default") == []  # as it was copied
        done(client.post("/sync/full"))
        assert indexes(client, "default") == ["orders"]


def test_what_a_definition_says_of_indexes_is_kept(client: httpx.Client, tmp_path: Path) -> None:
    """Null and an empty list are not the same; a masked password changes neither."""
    body = {"id": "away", "mysqlConnectionString": AWAY}
    lists: tuple[Any, ...] = (None, [], ["a", "b*"])
    for given in ({}, *({"unindexedTables": each} for each in lists)):
        done(client.post(PATH, json=body | given), 201)
        told = given.get("unindexedTables")
        assert done(client.get(f"{PATH}/away"))["unindexedTables"] == told
        masked = {**body, **given, "mysqlConnectionString": with_password(AWAY, "***")}
        assert done(client.put(f"{PATH}/away", json=masked))["unindexedTables"] == told
        (kept,) = DatabasesFile(tmp_path / "databases.json").load()
        assert kept.unindexed_tables == (None if told is None else tuple(told))
        done(client.delete(f"{PATH}/away"))


def indexes(client: httpx.Client, database: str) -> list[str]:
    """Tables whose key DuckDB has an index of."""
    sql = "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' AND has_primary_key ORDER BY ALL"
    return [row[0] for row in rows_of(client, database, sql)]


def rows_of(client: httpx.Client, database: str, sql: str) -> list[list[Any]]:
    body = done(client.post("/query", params={"db": database}, json={"sql": sql}))
    return [list(row.values()) for row in body["result"]]


def test_a_file_is_deleted_only_where_that_is_asked(
    client: httpx.Client, library: Database, tmp_path: Path
) -> None:
    done(client.post(PATH, json={"id": "library", "mysqlConnectionString": library.url}), 201)
    streams(client, "library")
    assert done(client.delete(f"{PATH}/library", params={"deleteFile": "true"}))["fileDeleted"] is True
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("library")] == []


def test_a_file_that_was_never_open_here_is_not_deleted(client: httpx.Client, tmp_path: Path) -> None:
    diary = tmp_path / "diary.db"
    diary.write_text("my diary\n" * 1000)
    body = {"id": "diary", "mysqlConnectionString": AWAY, "duckdbPath": str(diary)}
    assert done(client.post(PATH, json=body), 201)["errorCode"] == "REPLICA_FILE"
    refused = client.delete(f"{PATH}/diary", params={"deleteFile": "true"})
    assert done(refused, 422)["code"] == "FILE_NOT_OURS"
    done(client.delete(f"{PATH}/diary"))
    assert diary.read_text() == "my diary\n" * 1000


def test_a_database_that_fails_fails_alone_and_comes_by_itself(
    client: httpx.Client, library: Database, tmp_path: Path
) -> None:
    with duckdb.connect(str(tmp_path / "library.db")), duckdb.connect(str(tmp_path / "polled.db")):
        polled = {"id": "polled", "mysqlConnectionString": library.url, "cdcEnabled": False}
        done(client.post(PATH, json=polled), 201)
        added = done(client.post(PATH, json={"id": "library", "mysqlConnectionString": library.url}), 201)
        assert (added["state"], added["errorCode"]) in {
            ("failed", "REPLICA_LOCKED"),
            ("failed", "REPLICA_FILE"),
        }
        done(client.post(PATH, json={"id": "away", "mysqlConnectionString": AWAY}), 201)
        assert rows(client, "SELECT count(*) FROM orders") == [[2]]
        told = done(client.get("/cdc/status", params={"db": "library"}))["status"]
        assert told["state"] == "failed"
        assert client.get("/tables", params={"db": "library"}).status_code == 503
        assert client.get("/livez").status_code == 200
        not_ready = client.get("/readyz")
        assert not_ready.status_code == 503
        assert set(not_ready.json()["reasons"]) == {"library", "away", "polled"}
        health = {each["id"]: each["status"] for each in client.get("/health").json()["databases"]}
        assert health["default"] == "healthy"
        assert (health["library"], health["polled"]) == ("unhealthy", "unhealthy")
        assert client.get("/metrics").status_code == 200
        for wanted, known in (("", {"default", "library", "polled", "away"}), ("library", {"library"})):
            told = done(client.get("/status", params={"db": wanted} if wanted else {}))
            assert {each["id"] for each in told["databases"]} == known
        assert done(client.get("/status", params={"db": "none"}), 404)["code"] == "DATABASE_NOT_FOUND"
    streams(client, "library")
    assert rows_of(client, "library", "SELECT count(*) FROM books") == [[3]]


def test_a_changed_definition_replaces_the_pipeline(client: httpx.Client, library: Database) -> None:
    library.execute("CREATE TABLE loans (id INT PRIMARY KEY)")
    body = {"id": "library", "mysqlConnectionString": library.url, "includedTables": ["books"]}
    done(client.post(PATH, json=body), 201)
    streams(client, "library")
    assert done(client.get("/tables", params={"db": "library"}))["tables"] == ["books"]
    changed = done(client.put(f"{PATH}/library", json={**body, "name": "Library"}))
    assert (changed["name"], changed["state"]) == ("Library", "streaming")
    done(client.put(f"{PATH}/library", json={**body, "includedTables": [], "duckdbPath": ""}))
    streams(client, "library")
    done(client.post("/sync/full", params={"db": "library"}))
    assert sorted(done(client.get("/tables", params={"db": "library"}))["tables"]) == ["books", "loans"]


def test_passwords_come_back_masked_and_a_masked_one_keeps_the_old(
    client: httpx.Client, tmp_path: Path
) -> None:
    url = with_password(AWAY, "hush-word")
    added = done(client.post(PATH, json={"id": "away", "mysqlConnectionString": url}), 201)
    assert added["mysqlConnectionString"] == with_password(AWAY, "***")
    put = {**{key: added[key] for key in ("id", "mysqlConnectionString")}, "name": "kept"}
    assert done(client.put(f"{PATH}/away", json=put))["mysqlConnectionString"] == with_password(AWAY, "***")
    (kept,) = DatabasesFile(tmp_path / "databases.json").load()
    assert (kept.url, kept.name) == (url, "kept")
    # another host gets the password from nobody
    elsewhere = {**put, "mysqlConnectionString": put["mysqlConnectionString"].replace(":1/", ":2/")}
    assert done(client.put(f"{PATH}/away", json=elsewhere), 422)["code"] == "PASSWORD_NEEDED"
    assert "hush-word" not in client.get(PATH).text + client.get("/status").text
    masked = {"id": "new", "mysqlConnectionString": put["mysqlConnectionString"]}
    assert done(client.post(PATH, json=masked), 422)["code"] == "PASSWORD_NEEDED"


def test_the_file_is_the_owners_alone_and_replaced_as_a_whole(client: httpx.Client, tmp_path: Path) -> None:
    done(client.post(PATH, json={"id": "away", "mysqlConnectionString": AWAY}), 201)
    file = tmp_path / "databases.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.stat().st_ino
    done(client.delete(f"{PATH}/away"))
    assert file.stat().st_ino != before
    assert orjson.loads(file.read_bytes()) == {"format": 1, "databases": []}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".databases")] == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"id": "default"}, 409, "DATABASE_EXISTS"),
        ({"id": "DEFAULT"}, 409, "DATABASE_EXISTS"),
        ({"duckdbPath": "copy.db"}, 409, "DUCKDB_PATH_TAKEN"),
        ({"duckdbPath": "link.db"}, 409, "DUCKDB_PATH_TAKEN"),
        ({"duckdbPath": "databases.json"}, 422, "DUCKDB_PATH"),
        ({"duckdbPath": "copy.db.wal"}, 422, "DUCKDB_PATH"),
        ({"duckdbPath": "../elsewhere.db"}, 422, "DUCKDB_PATH"),
        ({"duckdbPath": "/etc/duckling.db"}, 422, "DUCKDB_PATH"),
        ({"duckdbPath": "a\x00b"}, 422, "DUCKDB_PATH"),
        ({"duckdbPath": "x" * 300}, 422, "DUCKDB_PATH"),
        ({"duckdbPath": "copy.db?access_mode=read_only"}, 422, "DUCKDB_PATH"),
        ({"mysqlConnectionString": "postgres://u:hush-word@h/d"}, 422, "CONNECTION_STRING"),
        ({"mysqlConnectionString": "mysql://u:hush-word@h/"}, 422, "CONNECTION_STRING"),
        ({"id": ""}, 400, "MALFORMED"),
        ({"id": "../x"}, 400, "MALFORMED"),
        ({"id": "a b"}, 400, "MALFORMED"),
        ({"id": "x" * 64}, 400, "MALFORMED"),
        ({"id": None}, 400, "MALFORMED"),
        ({"mysqlConnectionString": None}, 400, "MALFORMED"),
        ({"cdcEnabled": "perhaps"}, 400, "MALFORMED"),
        ({"syncIntervalMinutes": 0}, 400, "MALFORMED"),
        ({"includedTables": ["a"], "excludedTables": ["a"]}, 400, "MALFORMED"),
        ({"unindexedTables": "a"}, 400, "MALFORMED"),
        ({"unindexedTables": [""]}, 400, "MALFORMED"),
        ({"unindexedTables": [None]}, 400, "MALFORMED"),
        ({"colour": "green"}, 400, "MALFORMED"),
    ],
)
def test_a_definition_that_can_not_be_is_refused_and_changes_nothing(
    client: httpx.Client, tmp_path: Path, body: dict[str, Any], status: int, code: str
) -> None:
    (tmp_path / "link.db").hardlink_to(tmp_path / "copy.db")
    given = {"id": "other", "mysqlConnectionString": AWAY, **body}
    if "duckdbPath" in body and not body["duckdbPath"].startswith("/"):
        given["duckdbPath"] = f"{tmp_path}/{body['duckdbPath']}"
    answer = client.post(PATH, json=given)
    assert done(answer, status)["code"] == code
    assert "hush-word" not in answer.text
    assert [each["id"] for each in done(client.get(PATH))["databases"]] == ["default"]
    assert not (tmp_path / "databases.json").exists()


def test_the_database_of_the_settings_is_changed_there(client: httpx.Client) -> None:
    body = {"id": "default", "mysqlConnectionString": AWAY}
    assert done(client.put(f"{PATH}/default", json=body), 409)["code"] == "DATABASE_FIXED"
    assert done(client.delete(f"{PATH}/default"), 409)["code"] == "DATABASE_FIXED"
    body["id"] = "missing"
    assert done(client.put(f"{PATH}/missing", json=body), 404)["code"] == "DATABASE_NOT_FOUND"
    assert done(client.delete(f"{PATH}/missing"), 404)["code"] == "DATABASE_NOT_FOUND"
    assert done(client.post(f"{PATH}/missing/test"), 404)["code"] == "DATABASE_NOT_FOUND"


def test_an_id_never_changes(client: httpx.Client) -> None:
    done(client.post(PATH, json={"id": "away", "mysqlConnectionString": AWAY}), 201)
    other = {"id": "elsewhere", "mysqlConnectionString": AWAY}
    assert done(client.put(f"{PATH}/away", json=other), 400)["code"] == "MALFORMED"


def test_a_test_runs_preflight_and_changes_nothing(client: httpx.Client, tmp_path: Path) -> None:
    good = done(client.post(f"{PATH}/default/test"))
    assert (good["success"], good["tables"], good["error"]) == (True, ["orders"], None)
    assert good["server"]["flavor"] == "mysql"
    done(client.post(PATH, json={"id": "away", "mysqlConnectionString": AWAY}), 201)
    before = (tmp_path / "databases.json").read_bytes()
    bad = client.post(f"{PATH}/away/test")
    assert done(bad)["success"] is False
    assert bad.json()["error"]["code"] == "SOURCE_UNAVAILABLE"
    assert "hush-word" not in bad.text
    assert (tmp_path / "databases.json").read_bytes() == before


def test_databases_survive_a_restart_and_a_broken_one_does_not_stop_it(
    tmp_path: Path, shop: Database, library: Database
) -> None:
    with running_service(tmp_path, shop) as (process, client):
        streams(client, "default")
        done(client.post(PATH, json={"id": "library", "mysqlConnectionString": library.url}), 201)
        done(client.post(PATH, json={"id": "away", "mysqlConnectionString": AWAY}), 201)
        streams(client, "library")
        process.terminate()
        assert process.wait(WAIT) == 0
    library.execute("INSERT INTO books VALUES (10)")
    (tmp_path / "copy.db").write_text("my diary\n" * 1000)
    with running_service(tmp_path, shop) as (process, client):
        streams(client, "library")
        done(client.post("/sync/incremental", params={"db": "library"}))
        assert rows_of(client, "library", "SELECT max(id) FROM books") == [[10]]
        states = {each["id"]: each["errorCode"] for each in done(client.get(PATH))["databases"]}
        assert states["default"] == "REPLICA_FILE"
        assert set(states) == {"default", "library", "away"}
        process.terminate()
        assert process.wait(WAIT) == 0
    assert "hush-word" not in (tmp_path / "service.log").read_text()


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"format": 2, "databases": []}', '{"format": 1}', '{"format": 1, "databases": [{"id": 1}]}'],
)
def test_a_file_of_databases_that_can_not_be_read_stops_the_start_and_stays(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "databases.json"
    file.write_text(content)
    done_ = duckling(
        tmp_path, "serve", mysql_connection_string=AWAY, duckdb_path=tmp_path / "copy.db", **GOOD
    )
    assert_refused(done_, "databases.json")
    assert file.read_text() == content


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    file = DatabasesFile(tmp_path / "databases.json")
    definition = DatabaseDefinition.model_validate({"id": "a", "mysqlConnectionString": AWAY})
    file.save([definition])
    file.path.chmod(0o644)
    assert file.load() == (definition,)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_file_that_can_not_be_written_keeps_its_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = DatabasesFile(tmp_path / "databases.json")
    file.save([])
    before = file.path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    definition = DatabaseDefinition.model_validate({"id": "a", "mysqlConnectionString": AWAY})
    with pytest.raises(ConfigError, match="No space left"):
        file.save([definition])
    assert file.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["databases.json"]


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("mysql://u:p@h:1/d?ssl-mode=required", "mysql://u:***@h:1/d?ssl-mode=required"),
        ("mysql://u@h/d", "mysql://u@h/d"),
        ("mysql://u:a%3Ab@h/d", "mysql://u:***@h/d"),
    ],
)
def test_a_masked_address_keeps_all_but_the_password(
    url: str, masked: str, make: Callable[[str], DatabaseDefinition]
) -> None:
    assert make(url).masked_url == masked
    assert "p@" not in repr(make(url))


@pytest.fixture
def make() -> Callable[[str], DatabaseDefinition]:
    return lambda url: DatabaseDefinition.model_validate({"id": "a", "mysqlConnectionString": url})
