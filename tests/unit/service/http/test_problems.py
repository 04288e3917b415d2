"""What a refusal says of a parameter's values."""

from typing import Any

import pytest

from service.http.problems import describe_schema, shown


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9}, "integer, >= 1, <= 9"),
        ({"type": "number", "exclusiveMinimum": 0}, "number, > 0"),
        ({"enum": ["zip", "tar"]}, ["zip", "tar"]),
        ({"const": "zip"}, ["zip"]),
        ({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0}]}, "integer, >= 0"),
        ({"type": "string", "pattern": "^a$"}, "string like ^a$"),
        ({}, "text"),
    ],
)
def test_schema_is_put_in_words(schema: dict[str, Any], words: str | list[str]) -> None:
    assert describe_schema(schema) == words


@pytest.mark.parametrize("wrapped", [False, True])
def test_schema_that_names_another_is_put_in_the_words_of_that(wrapped: bool) -> None:
    schema: dict[str, Any] = {"$ref": "#/components/schemas/GateLevel"}
    if wrapped:
        schema = {"anyOf": [schema, {"type": "null"}]}
    assert describe_schema(schema, {"GateLevel": {"enum": ["off", "strict"]}}) == ["off", "strict"]


def test_long_value_is_cut() -> None:
    assert len(shown("x" * 10_000)) < 200
