"""The OpenAPI document, made from the route table, so that it cannot tell another story than the code."""

from __future__ import annotations

import re
from typing import Any

from askos.api import admin_schemas, answers, manifests, podschemas
from askos.api.core import PARAMETER_BODY, Route
from askos.api.microversion import HEADER, MAX
from askos.api.routedocs import DOCS, Docs

ALL_DOCS = {**DOCS, **admin_schemas.DOCS}
"""What is said of routes beyond the table."""
_REFUSALS = {
    400: "A parameter or the body is wrong",
    401: "There is no valid token",
    403: "The caller may not do this",
}
"""What every route answers that is not public."""


def document(routes: list[Route], version: str) -> dict[str, Any]:
    """The document for a route table."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Askos",
            "version": version,
            "description": "The API of OpenStack Zun (v1, microversions 1.1 to 1.40) and Askos' native API.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                **answers.SCHEMAS,
                **admin_schemas.COMPONENTS,
                **podschemas.COMPONENTS,
                **manifests.components(),
            },
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    docs = ALL_DOCS.get((route.method, route.path), Docs(""))
    success: dict[str, Any] = {"description": "Success" if route.success != 101 else "It is a WebSocket from here on"}
    content = {**({} if route.answer is None else {"application/json": route.answer}), **docs.also}
    if content:
        success["content"] = {kind: {"schema": _reference(name)} for kind, name in content.items()}
    responses = {str(route.success): success}
    if docs.known is not None:
        known = {"application/json": {"schema": _reference(docs.known)}}
        responses["200"] = {"description": "It was done before", "content": known}
    refusals = {} if route.public else _REFUSALS
    responses |= {str(status): _problem(why) for status, why in sorted({**refusals, **docs.refusals}.items())}
    responses |= {"4XX": _problem("Refused; the body says why"), "5XX": _problem("It cannot be done now")}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "parameters": _parameters(route, docs),
        "responses": responses,
        "security": [] if route.public else [{"token": []}],
    }
    if docs.text:
        operation["description"] = docs.text
    if callable(route.body):
        body = {kind: {"schema": route.body(MAX)} for kind in docs.takes}
        operation["requestBody"] = {"required": True, "content": body}
    elif route.body == PARAMETER_BODY and route.query and route.query["properties"]:
        operation["requestBody"] = {
            "required": False,
            "content": {"application/json": {"schema": {**route.query, "additionalProperties": True}}},
        }
    return operation


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _problem(why: str) -> dict[str, Any]:
    return {"description": why, "content": {"application/json": {"schema": _reference("Errors")}}}


def _parameters(route: Route, docs: Docs) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    properties = {**docs.query, **(route.query or {}).get("properties", {})}
    for name, schema in properties.items():
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": False}
        shown = dict(schema)
        if "description" in shown:
            parameter["description"] = shown.pop("description")
        found.append({**parameter, "schema": shown})
    if route.path.startswith("/v1"):
        example = f"container {MAX}"
        found.append({"name": HEADER, "in": "header", "schema": {"type": "string", "examples": [example]}})
    return found
