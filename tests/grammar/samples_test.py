"""Random constrained outputs satisfy their schemas, as the jsonschema package sees it.

    tests/grammar/samples_test.py build/tests/grammar_samples
"""

import json
import subprocess
import sys

import jsonschema

PER_SCHEMA = 25
POINT = {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
         "required": ["x", "y"], "additionalProperties": False}
SCHEMAS = [
    True,
    {},
    {"type": "object"},
    {"type": "array"},
    {"type": "string"},
    {"type": "number"},
    {"type": "integer"},
    {"type": ["boolean", "null"]},
    {"enum": ["a", 1, None, {"b": [1.5, "é\n\"\\"]}]},
    {"const": "\u0000\u001f\u007f\u2028😀"},
    {"type": "string", "minLength": 3, "maxLength": 5},
    {"type": "string", "minLength": 30},
    {"type": "string", "pattern": "^[A-Z]{2,3}-[0-9]{4}$"},
    {"type": "string", "pattern": "the|cat"},
    {"type": "string", "pattern": "^(\\w+ ?)+[.!?]$", "maxLength": 40},
    {"type": "string", "pattern": "^[^\\x20-\\x7e]{2}$"},
    {"type": "string", "pattern": "^[^ @]{1,9}@[^ @]{1,9}\\.[a-z]{2,3}$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"type": "integer", "minimum": -17, "maximum": 4211},
    {"type": "integer", "exclusiveMinimum": 99, "exclusiveMaximum": 101},
    {"type": "integer", "minimum": 123456789},
    {"type": "integer", "maximum": -1},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.01},
    {"type": "number", "minimum": -273.15},
    {"type": "number", "exclusiveMaximum": 1e9},
    {"type": "number", "minimum": -1e15, "maximum": 12345678901},
    {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
    {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "boolean"}},
    {"type": "array", "items": {"type": "array", "items": POINT, "maxItems": 3}, "minItems": 1},
    POINT,
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "boolean"}},
     "required": ["b"]},
    {"type": "object", "properties": {"a": {"type": "string"}, "the": {"type": "integer"}},
     "additionalProperties": {"type": "null"}},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2, "maxProperties": 3},
    {"type": "object", "properties": {"a": True, "b": True, "c": True}, "additionalProperties": False,
     "minProperties": 2},
    {"type": "object", "required": ["x", "y"]},
    {"type": "object", "properties": {"a": False, "b": {"type": "null"}}},
    {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "integer"}, POINT]},
    {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "string"}}]},
    {"oneOf": [{
    "type" : "object",
             "properties" : {"kind" : {"const" : k}, k : {"type" : "integer"}},
                            "required" : [ "kind", k ],
                                         "additionalProperties" : False} for k in ("circle", "square", "the")]},
    {"allOf": [{"$ref": "#/$defs/named"}, {"properties": {"age": {"type": "integer", "minimum": 0}},
                                          "required": ["age"]}],
     "$defs": {"named": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}}},
    {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
     "required": ["v", "next"], "additionalProperties": False},
    {"$ref": "#/definitions/tree", "definitions": {"tree": {
        "type": "object", "properties": {"value": {"type": "string", "maxLength": 3},
                                         "children": {"type": "array", "items": {"$ref": "#/definitions/tree"},
                                                      "maxItems": 2}}, "required": ["value"],
        "additionalProperties": False}}},
    {"$ref": "#/$defs/expr", "$defs": {"expr": {"anyOf": [
        {"type": "number"}, {"type": "array", "prefixItems": [{"enum": ["+", "*"]}, {"$ref": "#/$defs/expr"},
                                                              {"$ref": "#/$defs/expr"}], "items": False,
                             "minItems": 3}]}}},
    {"type": "integer", "multipleOf": 12, "minimum": -1000},
    {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 100},
    {"type": "string", "pattern": "a", "allOf": [{"pattern": "^[a-z]+$"}, {"format": "hostname"}], "maxLength": 12},
    {"type": "string", "format": "uri-template"},
    {"type": "string", "format": "regex"},
    {"type": "object", "patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False,
     "minProperties": 1, "maxProperties": 4},
    {"type": "object", "propertyNames": {"pattern": "^[a-z_]+$"}, "additionalProperties": {"type": "boolean"}},
    {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "boolean"}},
    {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
     "dependentRequired": {"a": ["b"], "c": ["a"]}},
    {"type": "object", "properties": {"kind": {"enum": ["x", "y"]}, "size": {"type": "integer"}},
     "dependentSchemas": {"size": {"properties": {"kind": {"const": "y"}}, "required": ["kind"]}}},
    {"allOf": [{"properties": {"a": {"type": "integer", "minimum": 5}}}, {"properties": {"a": {"maximum": 9}}}],
     "type": "object", "unevaluatedProperties": False, "required": ["a"]},
    {"title": "Invoice", "description": "x", "type": "object", "properties": {
        "id": {"type": "string", "pattern": "^INV-[0-9]{6}$"},
        "lines": {"type": "array", "minItems": 1, "maxItems": 3, "items": {
            "type": "object", "properties": {"item": {"type": "string", "minLength": 1, "maxLength": 12},
                                             "price": {"type": "number", "minimum": 0, "maximum": 1000},
                                             "unit": {"enum": ["kg", "m", None]}},
            "required": ["item", "price", "unit"], "additionalProperties": False}},
        "note": {"type": ["string", "null"], "maxLength": 20}},
     "required": ["id", "lines"], "additionalProperties": False},
]


def unique(pairs):
    assert len({name for name, _ in pairs}) == len(pairs), f"a key twice: {pairs}"
    return dict(pairs)


def key_order(schema, value):
    """Listed properties come in the schema's order, before all others."""
    listed = list(schema["properties"])
    expected = [name for name in listed if name in value]
    assert list(value)[:len(expected)] == expected, (listed, list(value))


def check(schema, text):
    assert not text.startswith("dead"), text
    value = json.loads(text, object_pairs_hook=unique)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(value)
    if isinstance(schema, dict) and "properties" in schema and isinstance(value, dict):
        key_order(schema, value)


def main():
    lines = "".join(json.dumps(schema) + "\n" for schema in SCHEMAS)
    result = subprocess.run([sys.argv[1], str(PER_SCHEMA)], input=lines, capture_output=True, text=True, check=True)
    outputs = [json.loads(line) for line in result.stdout.split("\n") if line]
    assert len(outputs) == len(SCHEMAS), (len(outputs), len(SCHEMAS))
    checked = 0
    for schema, texts in zip(SCHEMAS, outputs):
        assert isinstance(texts, list), (schema, texts)
        ended = [text for text in texts if text]
        assert len(ended) >= 5, f"{schema}: {len(ended)} of {PER_SCHEMA} outputs ended"
        for text in ended:
            try:
                check(schema, text)
            except Exception as error:
                raise AssertionError(f"{schema} gave {text!r}") from error
        checked += len(ended)
    print(f"{checked} outputs of {len(SCHEMAS)} schemas satisfy them")


if __name__ == "__main__":
    main()
