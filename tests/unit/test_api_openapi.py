"""The OpenAPI document tells what the code does: it is well formed, whole, and the answers fit it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from askos.api.app import ROUTES
from askos.api.openapi import ALL_DOCS as DOCS
from askos.api.routedocs import Docs

from .cloud import Cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

# OpenAPI 3.1, as far as it is used here; nothing beyond it is allowed, so that a slip is seen.
_REFERENCE = {
    "type": "object",
    "properties": {"$ref": {"type": "string", "pattern": "^#/components/schemas/[A-Za-z]+$"}},
    "required": ["$ref"],
    "additionalProperties": False,
}
_CONTENT = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "type": "object",
        "properties": {"schema": {"type": "object"}},
        "required": ["schema"],
        "additionalProperties": False,
    },
}
OPENAPI: dict[str, Any] = {
    "type": "object",
    "required": ["openapi", "info", "paths", "components"],
    "additionalProperties": False,
    "properties": {
        "openapi": {"const": "3.1.0"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "properties": {k: {"type": "string", "minLength": 1} for k in ("title", "version", "description")},
            "additionalProperties": False,
        },
        "paths": {
            "type": "object",
            "propertyNames": {"pattern": "^/"},
            "additionalProperties": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"enum": ["get", "put", "post", "delete", "patch", "head", "options"]},
                "additionalProperties": {
                    "type": "object",
                    "required": ["operationId", "summary", "responses", "parameters", "security"],
                    "additionalProperties": False,
                    "properties": {
                        "operationId": {"type": "string", "pattern": r"^\w+$"},
                        "summary": {"type": "string", "minLength": 1},
                        "description": {"type": "string", "minLength": 1},
                        "security": {"enum": [[], [{"token": []}]]},
                        "requestBody": {
                            "type": "object",
                            "required": ["content"],
                            "properties": {"required": {"type": "boolean"}, "content": _CONTENT},
                            "additionalProperties": False,
                        },
                        "responses": {
                            "type": "object",
                            "minProperties": 2,
                            "propertyNames": {"pattern": "^([1-5][0-9]{2}|[45]XX)$"},
                            "additionalProperties": {
                                "type": "object",
                                "required": ["description"],
                                "properties": {"description": {"type": "string"}, "content": _CONTENT},
                                "additionalProperties": False,
                            },
                        },
                        "parameters": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["name", "in", "schema"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "description": {"type": "string", "minLength": 1},
                                    "in": {"enum": ["path", "query", "header"]},
                                    "required": {"type": "boolean"},
                                    "schema": {"type": "object"},
                                },
                                "additionalProperties": False,
                                "if": {"properties": {"in": {"const": "path"}}},
                                "then": {"properties": {"required": {"const": True}}, "required": ["required"]},
                            },
                        },
                    },
                },
            },
        },
        "components": {
            "type": "object",
            "properties": {
                "schemas": {"type": "object", "propertyNames": {"pattern": "^[A-Za-z]+$"}},
                "securitySchemes": {
                    "type": "object",
                    "properties": {
                        "token": {
                            "const": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
                        }
                    },
                    "required": ["token"],
                },
            },
            "required": ["schemas", "securitySchemes"],
        },
    },
}


async def document(cloud: Cloud) -> dict[str, Any]:
    got = await cloud.ask("GET", "/openapi.json", None)
    assert got.status == 200
    return dict(got.body)


def schemas_in(value: Any) -> list[dict[str, Any]]:
    """Everything under a key `schema`, and the components."""
    found: list[dict[str, Any]] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "schema":
                found.append(inner)
            found += schemas_in(inner)
    elif isinstance(value, list):
        for inner in value:
            found += schemas_in(inner)
    return found


def references_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references_in(v) for v in value.values()))
    return set().union(*(references_in(v) for v in value)) if isinstance(value, list) else set()


async def test_it_is_well_formed(cloud: Cloud) -> None:
    found = await document(cloud)
    Draft202012Validator.check_schema(OPENAPI)
    errors = [f"{list(e.absolute_path)}: {e.message[:200]}" for e in Draft202012Validator(OPENAPI).iter_errors(found)]
    assert errors == []
    parts = [*schemas_in(found["paths"]), *found["components"]["schemas"].values()]
    assert len(parts) > 40
    for schema in parts:
        Draft202012Validator.check_schema(schema)
    names = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert references_in(found) <= names
    # What goes over WebSockets is told in the descriptions.
    spoken = {f"#/components/schemas/{n}" for n in re.findall(r"\(schema (\w+)\)", str(found["paths"]))}
    assert spoken <= names
    assert names <= references_in(found) | spoken, "a schema that nothing uses"


async def test_it_is_valid_openapi(cloud: Cloud) -> None:
    OpenAPIV31SpecValidator(await document(cloud)).validate()


async def test_operation_ids_are_unique_and_path_parameters_declared(cloud: Cloud) -> None:
    found = await document(cloud)
    ids = [op["operationId"] for operations in found["paths"].values() for op in operations.values()]
    assert len(ids) == len(set(ids))
    for path, operations in found["paths"].items():
        for operation in operations.values():
            declared = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
            assert declared == re.findall(r"\{(\w+)\}", path)
            everything = [(p["in"], p["name"]) for p in operation["parameters"]]
            assert len(everything) == len(set(everything))


async def test_every_route_is_in_it_and_nothing_else(cloud: Cloud) -> None:
    found = await document(cloud)
    routes = [route for route in cloud.app()[ROUTES] if route.path != "/openapi.json"]
    assert len(routes) > 25
    told = {(method.upper(), path) for path, operations in found["paths"].items() for method in operations}
    assert told == {(route.method, route.path) for route in routes}
    for route in routes:
        operation = found["paths"][route.path][route.method.lower()]
        assert str(route.success) in operation["responses"]
        assert (operation["security"] == []) == route.public
        versioned = any(p["name"] == "OpenStack-API-Version" for p in operation["parameters"])
        assert versioned == route.path.startswith("/v1")
        query = {p["name"] for p in operation["parameters"] if p["in"] == "query"}
        docs = DOCS.get((route.method, route.path), Docs(""))
        assert query == {*(route.query or {}).get("properties", {}), *docs.query}
    assert set(DOCS) <= told, "text about what is not there"


async def test_what_it_calls_public_needs_no_token_and_nothing_else_goes_without(cloud: Cloud) -> None:
    found = await document(cloud)
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            got = await cloud.ask(method.upper(), path.replace("{ident}", "x"), None)
            assert (got.status == 401) == (operation["security"] != []), (method, path)


async def test_answers_fit_it(cloud: Cloud) -> None:
    found = await document(cloud)
    token = cloud.project()
    running = await cloud.in_status(token, "Running")
    for status in ("Creating", "Created", "Stopped", "Restarting", "Error", "Error without a host", "Deleting"):
        await cloud.in_status(token, status)
    cloud.calls.answers = {
        "run": {"output": "", "exit_code": 0}, "logs": ([], None), "images": [{"id": "sha256:1"}],
        "image_import": ([], ["x"]), "signal": None,
    }  # fmt: skip
    root = f"root:{token.split(':')[1]}:admin"
    await cloud.volumes.create(token.split(":")[1], "ann", "data", 1, multiattach=False)
    asked = [
        ("GET", "/", "/", token),
        ("GET", "/v1", "/v1", token),
        ("GET", "/healthcheck", "/healthcheck", token),
        ("GET", "/v1/containers", "/v1/containers", token),
        ("GET", "/v1/containers", "/v1/containers", root),
        ("GET", "/v1/containers/{ident}", f"/v1/containers/{running}", token),
        ("GET", "/v1/containers/{ident}", f"/v1/containers/{running}", root),
        ("GET", "/v1/containers/{ident}/logs", f"/v1/containers/{running}/logs", token),
        ("POST", "/v1/containers/{ident}/execute", f"/v1/containers/{running}/execute?command=id", token),
        ("POST", "/v1/containers/{ident}/kill", f"/v1/containers/{running}/kill?signal=HUP", token),
        ("POST", "/v1/containers/{ident}/stop", f"/v1/containers/{running}/stop", token),
        ("GET", "/askos/v1/images", "/askos/v1/images", root),
        ("GET", "/askos/v1/volumes", "/askos/v1/volumes", token),
        ("GET", "/askos/v1/volumes/{ident}", "/askos/v1/volumes/data", token),
        ("DELETE", "/askos/v1/volumes/{ident}", "/askos/v1/volumes/data", token),
        ("GET", "/askos/v1/volumes/{ident}", "/askos/v1/volumes/data", token),
        ("POST", "/askos/v1/images/import", "/askos/v1/images/import", root),
        # and refusals
        ("GET", "/v1/containers/{ident}", "/v1/containers/none", token),
        ("GET", "/v1/containers/{ident}", "/v1/containers/none", None),
        ("GET", "/v1/containers", "/v1/containers?limit=0", token),
        ("POST", "/v1/containers/{ident}/start", f"/v1/containers/{running}/start", token),
    ]
    for method, path, actual, caller in asked:
        got = await cloud.ask(method, actual, caller)
        responses = found["paths"][path][method.lower()]["responses"]
        told = responses["4XX"] if got.status >= 400 else responses[str(got.status)]
        schema = {**told["content"]["application/json"]["schema"], "components": found["components"]}
        problems = [e.message[:200] for e in Draft202012Validator(schema).iter_errors(got.body)]
        assert problems == [], (method, actual)


async def test_a_container_has_every_key_that_is_told_and_no_other(cloud: Cloud) -> None:
    found = (await document(cloud))["components"]["schemas"]["Container"]
    shown = await cloud.show(await cloud.create(cloud.project()))
    assert set(shown) == set(found["properties"])
