# The service alone: no torch, no transformers, no compiler, and no model: mount the model folders at /models.
# `--target baked --build-arg MODEL=models/NAME` puts one model into the image instead (see docs/operations.md).
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
# serve; or batch or ray for `bertrand score` (docs/scoring.md), or train
ARG REQUIREMENTS=serve
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/bertrand
COPY requirements/${REQUIREMENTS}.txt /build/requirements/
RUN /opt/bertrand/bin/pip install --requirement /build/requirements/${REQUIREMENTS}.txt
COPY pyproject.toml README.md LICENSE /build/
COPY bertrand /build/bertrand
COPY training /build/training
COPY inference /build/inference
COPY scoring /build/scoring
COPY service /build/service
# pip goes too: nothing is installed into a running container.
RUN /opt/bertrand/bin/pip install --no-deps /build && /opt/bertrand/bin/pip uninstall --yes setuptools pip

FROM ${BASE} AS service
ARG VERSION=unreleased REVISION=unknown
LABEL org.opencontainers.image.title="Bertrand" \
      org.opencontainers.image.description="Predictions and token embeddings from one fine-tuned BERT" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin bertrand
COPY --from=build /opt/bertrand /opt/bertrand
ENV PATH=/opt/bertrand/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BENTOML_DO_NOT_TRACK=true \
    BERTRAND_MODEL=/models/current
USER 10001:10001
WORKDIR /tmp
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:3000/readyz', timeout=4)"]
ENTRYPOINT ["bertrand"]
CMD ["serve", "--host", "0.0.0.0"]

# What serving reads of one model folder.
FROM service AS baked
ARG MODEL=models/demo
COPY ${MODEL} /models/current

FROM service
