"""The description of the HTTP interface, made from the models that check it."""

from __future__ import annotations

import re
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from service import schema
from service.wire import JSON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.routes import Route

REF = "#/components/schemas/{model}"

# Swagger UI as BentoML ships it: no request leaves the server.
DOCS_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Bertrand: HTTP interface</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static_content/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="/static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#api", deepLinking: true});</script>
</body>
</html>
"""


def document(routes: Mapping[str, Mapping[str, Route]]) -> dict[str, Any]:
    """
    Return the OpenAPI 3.1 document of the service.

    Args:
        routes: By path template and method.
    """
    every = [route for methods in routes.values() for route in methods.values()]
    shapes: dict[int, Any] = {
        id(shape): shape for route in every for shape in (route.request, route.shape) if _is_type(shape)
    }
    inputs = [(key, "validation", TypeAdapter(shape)) for key, shape in shapes.items()]
    inputs.append((0, "validation", TypeAdapter(schema.ErrorAnswer)))
    refs, definitions = TypeAdapter.json_schemas(inputs, ref_template=REF)  # type: ignore[arg-type]
    schemas = {key: found for (key, _), found in refs.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Bertrand",
            "version": _version(),
            "description": "Labels, token embeddings and sentence embeddings from one fine-tuned BERT.",
        },
        "paths": {
            template: {
                method.lower(): _operation(template, method, route, schemas) for method, route in methods.items()
            }
            for template, methods in routes.items()
        },
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],  # a server without keys is open
    }


def _operation(template: str, method: str, route: Route, schemas: Mapping[int, Any]) -> dict[str, Any]:
    errors: tuple[int, ...] = (401, 500, *route.errors)
    if route.group == "health":
        errors += (503,)
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}_{template.strip('/') or 'home'}").rstrip("_"),
        "summary": route.summary,
    }
    if names := re.findall(r"{(\w+)}", template):
        errors += (404,)
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.request is not None:
        errors += (400, 408, 413, 415, 422, 429, 504)
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas[id(route.request)]}}}
    good: dict[str, Any] = {"description": "OK"}
    if _is_type(route.shape):
        good["content"] = {JSON: {"schema": schemas[id(route.shape)]}}
    else:
        good["content"] = {route.shape: {"schema": {"type": "string"}}}
    failed = {JSON: {"schema": schemas[0]}}
    operation["responses"] = {"200": good} | {
        str(code): {"description": HTTPStatus(code).phrase, "content": failed} for code in sorted(errors)
    }
    return operation


def _is_type(shape: object) -> bool:
    """Whether a shape is the type of a JSON body, rather than the name of another media type."""
    return shape is not None and not isinstance(shape, str)


def _version() -> str:
    try:
        return version("bertrand")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
