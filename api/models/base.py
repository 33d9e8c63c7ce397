"""What every shape is, and those that all parts of the API share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Shape(BaseModel):
    """An object of an answer. A field with a default that is not set is left out of the answer."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class ProblemAnswer(Shape):
    """Every error, as `application/problem+json`."""

    status: int
    title: str
    error: str = Field(description="One sentence.")
    code: str = Field(description="Stable, for scripts.")
    hint: str = Field(description="What to do.")
    table: str | None = Field(default=None, description="The table it belongs to, where it does.")


class Done(Shape):
    """It is done."""

    success: bool
    message: str
