"""Every route of the service: what it reads, who answers it, what the answer looks like, and who may ask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from service import schema
from service.answers import Answers
from service.dialects import oip, openai, tei
from service.errors import ApiError
from service.openapi import DOCS_PAGE
from service.page import INDEX
from service.wire import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pydantic import BaseModel

    from service.answers import Call
    from service.http import Front

OTHER = "other"  # the `route` label of paths that are none of these
READING = ("GET", "HEAD")


@dataclass(frozen=True)
class Route:
    """One method of one path."""

    summary: str
    shape: Any  # of the JSON answer; the media type of an answer that is something else
    model: Callable[[Answers, Any, Call], Awaitable[object]] | None = None  # answers with the model that serves now
    server: Callable[[Front, Call], object] | None = None  # answers for the server itself
    request: type[BaseModel] | None = None  # what the body holds
    read: Callable[[type[BaseModel], bytes, Call], BaseModel] | None = None  # how, where it is not plain JSON
    errors: tuple[int, ...] = ()  # statuses that no other route of its kind answers with
    group: Literal["inference", "health", "metrics", "docs"] = "inference"  # who may ask: see `Settings.keyless`


def _post(
    answer: Callable[..., Awaitable[object]], request: type[BaseModel], shape: Any, errors: tuple[int, ...] = ()
) -> dict[str, Route]:
    return {"POST": Route((answer.__doc__ or "").strip(), shape, model=answer, request=request, errors=errors)}


def _health(summary: str, server: Callable[[Front, Call], object]) -> dict[str, Route]:
    return {"GET": Route(summary, schema.StatusAnswer, server=server, group="health")}


async def _info(answers: Answers, _request: None, _call: Call) -> object:
    """Say what the model is and what the server takes."""
    return answers.info()


def _get(answer: Callable[..., Awaitable[object]], shape: Any, **rest: Any) -> dict[str, Route]:
    return {"GET": Route((answer.__doc__ or "").strip(), shape, model=answer, **rest)}


def _oip_model(path: str) -> dict[str, dict[str, Route]]:
    """Return the routes of a model of the Open Inference Protocol."""
    infer = Route(
        (oip.infer.__doc__ or "").strip(),
        oip.InferAnswer,
        model=oip.infer,
        request=oip.InferRequest,
        read=oip.read_infer,
    )
    return {
        path: _get(oip.model_metadata, oip.ModelMetadata),
        f"{path}/ready": _get(oip.model_ready, oip.ModelReadyAnswer, group="health"),
        f"{path}/infer": {"POST": infer},
    }


ROUTES: dict[str, dict[str, Route]] = {
    "/v1/classify": _post(Answers.classify, schema.TextsRequest, schema.ClassifyAnswer),
    "/v1/analyze": _post(Answers.analyze, schema.TextsRequest, schema.AnalyzeAnswer),
    "/v1/embed": _post(Answers.embed, schema.TextsRequest, schema.EmbedAnswer),
    "/v1/tokenize": _post(Answers.tokenize, schema.TokenizeRequest, schema.TokenizeAnswer),
    "/v1/types": _post(Answers.types, schema.TypesRequest, schema.TypesAnswer, errors=(501,)),
    "/v1/explain": _post(Answers.explain, schema.ExplainRequest, schema.ExplainAnswer),
    "/v1/info": _get(_info, schema.InfoAnswer),
    "/livez": _health("Whether the process can do its work.", lambda front, _: front.alive()),
    "/readyz": _health("Whether requests will be answered.", lambda front, _: front.ready()),
    "/metrics": {
        "GET": Route(
            "Metrics for Prometheus.", "text/plain", server=lambda front, _: front.render_metrics(), group="metrics"
        )
    },
    "/docs": {
        "GET": Route(
            "This description, to read and to try.",
            "text/html",
            server=lambda *_: Reply(DOCS_PAGE, "text/html; charset=utf-8"),
            group="docs",
        )
    },
    "/openapi.json": {
        "GET": Route(
            "This description, for programs.", dict[str, Any], server=lambda front, _: front.openapi, group="docs"
        )
    },
    "/": {
        "GET": Route(
            "The explorer page.",
            "text/html",
            server=lambda front, call: front.page.file(INDEX, call.headers),
            group="docs",
        ),
        **_post(tei.predict, tei.PredictRequest, tei.Predictions),
    },
    "/web/{name}": {
        "GET": Route(
            "A file of the explorer page.",
            "*/*",
            server=lambda front, call: front.page.file(call.path["name"], call.headers),
            group="docs",
        )
    },
    "/predict": _post(tei.predict, tei.PredictRequest, tei.Predictions),
    "/embed": _post(tei.embed, tei.EmbedRequest, list[list[float]]),
    "/embed_all": _post(tei.embed_all, tei.EmbedAllRequest, list[list[list[float]]]),
    "/tokenize": _post(tei.tokenize, tei.TokensRequest, list[list[tei.SimpleToken]]),
    "/info": _get(tei.info, tei.ServerInfo),
    "/health": _health("Whether requests will be answered.", lambda front, _: front.ready()),
    "/v1/embeddings": _post(openai.embeddings, openai.EmbeddingsRequest, openai.EmbeddingsAnswer),
    "/v2": {
        "GET": Route(
            (oip.server_metadata.__doc__ or "").strip(),
            oip.ServerMetadata,
            server=lambda front, _: oip.server_metadata(front.openapi["info"]["version"]),
        )
    },
    "/v2/health/live": {
        "GET": Route(
            "Whether the process can do its work.",
            oip.LiveAnswer,
            server=lambda front, _: {"live": bool(front.alive())},
            group="health",
        )
    },
    "/v2/health/ready": {
        "GET": Route(
            "Whether requests will be answered.",
            oip.ReadyAnswer,
            server=lambda front, _: {"ready": bool(front.ready())},
            group="health",
        )
    },
    **_oip_model("/v2/models/{name}"),
    **_oip_model("/v2/models/{name}/versions/{version}"),
}

_PATTERNS = {
    template: re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]{1,200})", re.escape(template)))
    for template in ROUTES
    if "{" in template
}


def find(path: str) -> tuple[str, dict[str, str]]:
    """
    Return the template that a path follows and what stands in its places.

    Raises:
        ApiError: there is nothing at this path.
    """
    if path in ROUTES:
        return path, {}
    for template, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(path):
            return template, match.groupdict()
    raise ApiError(404, "route_unknown", "there is nothing at this path; /docs lists what there is")


def methods(routes: Mapping[str, Route]) -> tuple[str, ...]:
    """Return the methods that a path answers."""
    return tuple(name for method in routes for name in (READING if method == "GET" else (method,)))
