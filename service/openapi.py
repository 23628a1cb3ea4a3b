"""The description of the HTTP interface, made from the models that check it."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from service import schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.http import Route

REF = "#/components/schemas/{model}"
POST_ERRORS = (400, 405, 413, 415, 422, 500, 503)

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


def document(routes: Mapping[str, Route]) -> dict[str, Any]:
    """
    Return the OpenAPI 3.1 document of the service.

    Args:
        routes: The POST routes; the GET routes are the same for every service.
    """
    models = {route.request for route in routes.values()} | {route.shape for route in routes.values()}
    models |= {schema.ErrorAnswer, schema.InfoAnswer, schema.StatusAnswer}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=REF)
    paths: dict[str, Any] = {path: {"post": _post(path, route)} for path, route in routes.items()}
    paths["/v1/info"] = {
        "get": _get("info", "Say what the model is and what the server takes.", schema.InfoAnswer, 503)
    }
    paths["/livez"] = {"get": _get("livez", "Whether the process answers.", schema.StatusAnswer)}
    paths["/readyz"] = {"get": _get("readyz", "Whether requests will be answered.", schema.StatusAnswer, 503)}
    paths["/metrics"] = {
        "get": {
            "operationId": "metrics",
            "summary": "Metrics for Prometheus.",
            "responses": {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Bertrand",
            "version": _version(),
            "description": "Labels, token embeddings and sentence embeddings from one fine-tuned BERT.",
        },
        "paths": paths,
        "components": {"schemas": definitions["$defs"]},
    }


def _post(path: str, route: Route) -> dict[str, Any]:
    return {
        "operationId": path.rpartition("/")[2],
        "summary": (route.answer.__doc__ or "").strip(),
        "requestBody": {"required": True, "content": _content(route.request)},
        "responses": {"200": {"description": "OK", "content": _content(route.shape)}} | _errors(*POST_ERRORS),
    }


def _get(name: str, summary: str, shape: type[Any], *errors: int) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": _content(shape)}} | _errors(*errors),
    }


def _errors(*codes: int) -> dict[str, Any]:
    return {
        str(code): {"description": HTTPStatus(code).phrase, "content": _content(schema.ErrorAnswer)} for code in codes
    }


def _content(model: type[Any]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF.format(model=model.__name__)}}}


def _version() -> str:
    try:
        return version("bertrand")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
