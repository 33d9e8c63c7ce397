"""The OpenAPI document as one page of HTML: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

Document = dict[str, Any]

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1rem}
code,pre{font:0.9em ui-monospace,monospace}h2{border-bottom:1px solid var(--line);margin-top:2.5rem}
details{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}summary code{font-weight:600}.method{display:inline-block;min-width:4.2em;font-weight:700}
.get{color:#0a7}.post{color:#27d}.put{color:#b70}.delete{color:#c33}
table{border-collapse:collapse;width:100%;margin:.4rem 0}
td,th{border-bottom:1px solid var(--soft);padding:.2rem .6rem .2rem 0;text-align:left;vertical-align:top}
nav a{margin-right:1rem}
"""


def page(document: Document) -> str:
    """The page for `document`."""
    info = document["info"]
    schemas = document["components"]["schemas"]
    tags = list(dict.fromkeys(operation["tags"][0] for _, _, operation in _operations(document)))
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        f"<p>{_text(info['description'])}</p><nav>",
        *(f"<a href='#{tag}'>{tag}</a>" for tag in tags),
        "<a href='#shapes'>shapes</a></nav>",
    ]
    for tag in tags:
        parts.append(f"<h2 id='{tag}'>{escape(tag.capitalize())}</h2>")
        for method, path, operation in _operations(document):
            if operation["tags"][0] == tag:
                parts.append(_operation(method, path, operation))
    parts.append("<h2 id=shapes>Shapes</h2>")
    parts.extend(_schema(name, schema) for name, schema in sorted(schemas.items()))
    return "".join(parts) + "</html>"


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def _operation(method: str, path: str, operation: Document) -> str:
    parts = [
        f"<details id='{operation['operationId']}'><summary><span class='method {method}'>{method.upper()}</span> ",
        f"<code>{escape(path)}</code> — {_text(operation['summary'])}</summary>",
    ]
    if "description" in operation:
        parts.append(f"<p>{_text(operation['description'])}</p>")
    if operation.get("security") == []:
        parts.append("<p>Needs no key.</p>")
    if operation["parameters"]:
        rows = (
            (
                f"<code>{escape(each['name'])}</code>",
                each["in"],
                _kind(each["schema"]),
                _text(each.get("description", "")),
            )
            for each in operation["parameters"]
        )
        parts.append(_table(("parameter", "in", "type", "meaning"), rows))
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        parts.append(f"<p>Body: {_kind(content['schema'])}</p>")
    rows_ = (
        (status, _contents(response["content"]), _text(response["description"]))
        for status, response in sorted(operation["responses"].items())
    )
    parts.append(_table(("status", "answer", "meaning"), rows_))
    return "".join(parts) + "</details>"


def _contents(content: Document) -> str:
    return "<br>".join(
        f"<code>{escape(media)}</code> {_kind(each['schema'])}" for media, each in content.items()
    )


def _schema(name: str, schema: Document) -> str:
    required = set(schema.get("required", ()))
    rows = (
        (
            f"<code>{escape(field)}</code>{'' if field in required else ' (optional)'}",
            _kind(each),
            _text(each.get("description", "")),
        )
        for field, each in schema.get("properties", {}).items()
    )
    about = _text(" ".join(schema.get("description", "").split()))
    return (
        f"<details id='shape-{escape(name)}'><summary><code>{escape(name)}</code> — {about}</summary>"
        f"{_table(('field', 'type', 'meaning'), rows)}</details>"
    )


def _kind(schema: Document) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href='#shape-{escape(name)}'>{escape(name)}</a>"
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {})) or 'any'}"
    if "minimum" in schema or "maximum" in schema:
        return f"{kind} {schema.get('minimum', '')}…{schema.get('maximum', '')}"
    return escape(str(schema.get("format") or kind))


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{each}" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _text(text: str) -> str:
    """Text with what stands between backticks as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{each}</code>" if i % 2 else each for i, each in enumerate(pieces))
