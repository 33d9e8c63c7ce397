"""What operators work with, held against the code: dashboard, alert rules, container, pages of codes and events."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cdc.config import Settings
from cdc.metrics import Metrics
from cdc.observed import Observed
from cdc.sandbox.packages import library_path, loader, unpacked
from cdc.status import PipelineState, PipelineStatus, TableState

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCKER = ROOT / "docker"
PROMETHEUS = DOCKER / "prometheus"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
VALUES = re.compile(r"^(row|value|values|sql|query|statement|params|body|password|key|token|url)$")
"""Fields that would invite a row's value, a client's SQL or a secret into the log."""


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for top in ("cdc", "api"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def page(name: str) -> list[list[str]]:
    """The cells of every row of every table of a page."""
    lines = (DOCS / name).read_text().splitlines()
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| `")
    ]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Logs ----------------------------------------------------------------------------------------------------


def logged() -> dict[str, tuple[set[str], set[str]]]:
    """Event to its levels and fields, as the source calls them."""
    events: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for path, tree in sources():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            target, level = node.func.value, node.func.attr
            if not (isinstance(target, ast.Name) and target.id == "log" and level in LEVELS):
                continue
            where = f"{path}:{node.lineno}"
            assert len(node.args) == 1, f"{where}: an event and named fields, no more"
            [event] = node.args
            assert isinstance(event, ast.Constant), f"{where}: an event's name is a constant"
            assert isinstance(event.value, str), f"{where}: an event's name is text"
            levels, fields = events[event.value]
            levels.add("error" if level == "exception" else level)
            given = {keyword.arg for keyword in node.keywords}
            assert None not in given, f"{where}: fields are named one by one"
            trace = {"exception"} if level == "exception" or "exc_info" in given else set()
            fields |= {str(name) for name in given - {"exc_info"}} | trace
    return events


def test_every_event_of_the_log_is_on_its_page_with_its_levels_and_fields() -> None:
    told = {
        names(row[0])[0]: (set(row[1].split(", ")), set(names(row[2])))
        for row in page("logs.md")
        if "." in row[0]
    }
    assert told == logged()


def test_events_are_named_alike_and_no_field_invites_a_value() -> None:
    for event, (_, fields) in logged().items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", event)
        assert not [name for name in fields if VALUES.match(name)], event


def test_every_event_is_about_a_database_unless_it_is_about_the_process() -> None:
    process = {"service", "http", "copy.lock_left_to_time_out", "databases", "pipeline.stop_late"}
    for event, (_, fields) in logged().items():
        if event not in process and event.split(".")[0] not in process:
            assert "database" in fields, event


# Errors --------------------------------------------------------------------------------------------------


def codes_of(tree: ast.Module) -> Iterator[str]:
    """Codes that a module gives to errors, findings and answers."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        value: ast.expr | None = None
        match node:
            case ast.keyword(arg="code", value=value):
                pass
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                pass
            case ast.Call(func=ast.Name(id="Finding"), args=[value, *_]):
                pass
            case ast.For(target=ast.Tuple()):
                yield from _codes_of_loop(node)
            case _:
                continue
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value
        elif isinstance(value, ast.Name) and value.id in constants:
            yield constants[value.id]


def _codes_of_loop(node: ast.For) -> Iterator[str]:
    """`for on, code, name in ((…, "CODE", …), …)`."""
    assert isinstance(node.target, ast.Tuple)
    at = [index for index, each in enumerate(node.target.elts) if ast.unparse(each) == "code"]
    if at and isinstance(node.iter, ast.Tuple):
        for row in node.iter.elts:
            value = row.elts[at[0]] if isinstance(row, ast.Tuple) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


def test_every_code_of_the_source_is_on_the_page_of_errors_and_no_other() -> None:
    ours = {code for _, tree in sources() for code in codes_of(tree)}
    assert len(ours) > 50
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", code) for code in ours)
    told = {name for row in page("errors.md") for name in names(row[0])}
    assert told - {"METHOD_NOT_ALLOWED"} == ours  # that one is made of the status of HTTP


def test_every_code_has_a_meaning_and_a_way_out() -> None:
    for row in page("errors.md"):
        assert all(row), row
        assert len(row) in (3, 4), row


# Metrics -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """Every series name that a scrape can show, those of histograms and counters spelt out."""
    metrics = Metrics()
    metrics.for_database("shop")
    status = PipelineStatus("shop", PipelineState.STREAMING, "cdc", running=True, enabled=True)
    metrics.observe(lambda: [Observed(status, ROOT / "copy.db")])
    found: set[str] = set()
    for line in metrics.render().decode().splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            found |= (
                {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name}
            )
    return found


def expressions_of(dashboard: Any) -> Iterator[str]:
    if isinstance(dashboard, dict):
        if isinstance(dashboard.get("expr"), str):
            yield dashboard["expr"]
        for value in dashboard.values():
            yield from expressions_of(value)
    elif isinstance(dashboard, list):
        for value in dashboard:
            yield from expressions_of(value)


def dashboard() -> Any:
    return json.loads((DOCKER / "grafana" / "dashboards" / "duckling.json").read_text())


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:duckling|process)_[a-z_]+", expression))


def test_dashboard_and_alert_rules_name_metrics_that_exist(shown: set[str]) -> None:
    expressions = [*expressions_of(dashboard()), *(rule["expr"] for rule in rules())]
    assert len(expressions) > 50
    for expression in expressions:
        assert metrics_in(expression) <= shown, expression
    for variable in dashboard()["templating"]["list"]:
        assert metrics_in(variable["query"]["query"]) <= shown


def test_every_metric_of_ours_is_on_the_dashboard(shown: set[str]) -> None:
    drawn = set().union(*map(metrics_in, expressions_of(dashboard())))
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown if name.startswith("duckling_")}
    ours -= {name for name in ours if name.endswith("_created")}
    assert ours <= {re.sub(r"_(bucket|sum|count)$", "", name) for name in drawn}


def test_states_in_expressions_are_states_that_exist() -> None:
    states = {each.value for each in PipelineState} | {each.value for each in TableState}
    named = [
        state
        for rule in rules()
        for group in re.findall(r'state=~?"([^"]+)"', rule["expr"])
        for state in group.split("|")
    ]
    assert named
    assert set(named) <= states


def test_every_alert_says_how_grave_it_is_and_what_to_do() -> None:
    alerts = [rule["alert"] for rule in rules()]
    assert len(alerts) == len(set(alerts))
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_every_alert_is_seen_to_fire() -> None:
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    fired = {
        expected["alertname"]
        for case in cases
        for expected in case["alert_rule_test"]
        if expected["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in rules()}


def test_panels_do_not_overlap() -> None:
    places: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in places, f"{panel['title']} covers {places[x, y]}"
                places[x, y] = panel["title"]


# The tools' own judgement ----------------------------------------------------------------------------------


def program(suite: str, package: str, path: str) -> list[str]:
    """The command of a program of a Debian package, which is unpacked, not installed."""
    root = unpacked(suite, package)
    return [str(loader(root)), "--library-path", library_path(root), str(root / path)]


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def promtool() -> list[str]:
    """Prometheus's own checker."""
    return program("bookworm", "prometheus", "usr/bin/promtool")


def test_prometheus_takes_its_configuration_and_the_rules_and_they_fire_when_they_should(
    promtool: list[str],
) -> None:
    run(*promtool, "check", "config", "--syntax-only", "prometheus.yml", cwd=PROMETHEUS)
    run(*promtool, "check", "rules", "alerts.yml", cwd=PROMETHEUS)
    run(*promtool, "test", "rules", "alerts_test.yml", cwd=PROMETHEUS)


def test_prometheus_can_read_every_expression_of_the_dashboard(promtool: list[str], tmp_path: Path) -> None:
    chosen = {"$instance": ".*", "$database": ".*", "$__rate_interval": "1m", "$__range": "1h"}
    written: list[dict[str, str]] = []
    for expression in expressions_of(dashboard()):
        for variable, value in chosen.items():
            expression = expression.replace(variable, value)
        written.append({"record": f"panel:{len(written)}", "expr": expression})
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": written}]}))
    run(*promtool, "check", "rules", "rules.yml", cwd=tmp_path)


SECRETS = dict.fromkeys(
    ("MYSQL_ROOT_PASSWORD", "MYSQL_PASSWORD", "DUCKLING_API_KEY", "GRAFANA_PASSWORD"), "x" * 16
)


@pytest.fixture(scope="module")
def compose() -> Any:
    """The compose file as Docker Compose itself reads it."""
    command = program("sid", "docker-compose", "usr/libexec/docker/cli-plugins/docker-compose")
    told = run(*command, "--file", DOCKER / "compose.yml", "config", "--format", "json", cwd=ROOT, **SECRETS)
    return json.loads(told)


def test_docker_compose_takes_the_file_and_every_port_is_on_loopback(compose: Any) -> None:
    assert set(compose["services"]) == {"mysql", "duckling", "prometheus", "grafana"}
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert len(ports) == 4
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_every_file_that_compose_mounts_is_there(compose: Any) -> None:
    mounts = [
        Path(volume["source"])
        for service in compose["services"].values()
        for volume in service["volumes"]
        if volume["type"] == "bind"
    ]
    assert len(mounts) == 6
    assert [path for path in mounts if not path.exists()] == []


def test_no_secret_stands_in_the_files_and_containers_get_them_as_files(compose: Any) -> None:
    for name, service in compose["services"].items():
        given = {key for key, value in service.get("environment", {}).items() if value == "x" * 16}
        assert given == ({"DUCKLING_API_KEY"} if name == "duckling" else set())
        assert "no-new-privileges:true" in service["security_opt"]


def test_the_settings_of_the_container_are_settings(compose: Any) -> None:
    image = set(re.findall(r"^\s+([A-Z_]+)=", (DOCKER / "Dockerfile").read_text(), re.MULTILINE))
    image -= {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PATH", "PIP_NO_CACHE_DIR"}
    service = (DOCKER / "systemd" / "duckling.service").read_text()
    unit = set(re.findall(r"^Environment=([A-Z_]+)=", service, re.MULTILINE))
    given = set(compose["services"]["duckling"]["environment"]) | image | unit
    assert {"HOST", "DUCKDB_PATH", "MYSQL_PASSWORD_FILE"} <= given
    assert given <= {name.upper() for name in Settings.model_fields}


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    assert run(Path(sys.executable).with_name("hadolint"), DOCKER / "Dockerfile") == ""


def test_the_image_gets_its_health_from_the_probe_that_needs_no_key() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert "/livez" in text
    code = re.search(r'"-c", "(.*)"\]', text)
    assert code is not None
    compile(json.loads(f'"{code[1]}"'), "healthcheck", "exec")
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)


def test_scripts_of_the_containers_are_valid_shell() -> None:
    run("bash", "-n", DOCKER / "mysql" / "account.sh")
