"""Which of the media types that a path can answer the client wants (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.errors import DucklingError

JSON = "application/json"


class NotAcceptableError(DucklingError):
    """None of the media types that the client takes can be answered."""

    code = "NOT_ACCEPTABLE"
    status = 406
    title = "Not acceptable"


def accepted(header: str | None, offered: Sequence[str]) -> str:
    """The one of `offered` that `header`, an Accept header, likes best; the first where there is none.

    Raises NotAcceptableError.
    """
    if header is None or not header.strip():
        return offered[0]
    best, weight = None, 0.0
    for media in offered:
        liked = _weight(header, media)
        if liked > weight:
            best, weight = media, liked
    if best is None:
        raise NotAcceptableError(
            "no format that the Accept header takes can be answered", hint=f"one of: {', '.join(offered)}"
        )
    return best


def _weight(header: str, media: str) -> float:
    """How much `header` likes `media`, by its most exact range; 0 where it does not take it."""
    kind = media.partition("/")[0]
    exactness = {media: 3, f"{kind}/*": 2, "*/*": 1}
    found, weight = 0, 0.0
    for part in header.split(","):
        range_, *parameters = (piece.strip().lower() for piece in part.split(";"))
        exact = exactness.get(range_, 0)
        if exact > found:
            found, weight = exact, _quality(parameters)
    return weight


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
