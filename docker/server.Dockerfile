# The API: no torch, no compiler, no package manager of its own. Build from the repository's root:
#   docker build -f docker/server.Dockerfile -t framedit-server .
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv /build/tools && python3 -m venv --without-pip /opt/framedit
# What the project needs comes before the project: a change of its source leaves these layers as they are.
COPY docker/requirements/build.txt ./
RUN ["/build/tools/bin/pip", "install", "--require-hashes", "--no-deps", "-r", "build.txt"]
COPY docker/requirements/server.txt ./
RUN /build/tools/bin/pip --python /opt/framedit/bin/python install --require-hashes --no-deps -r server.txt \
    && /build/tools/bin/cyclonedx-py environment /opt/framedit/bin/python -o /opt/framedit/sbom.cdx.json

FROM dependencies AS project
COPY . /build/source
RUN /build/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /build/wheel /build/source \
    && /build/tools/bin/pip --python /opt/framedit/bin/python install --no-deps --no-index \
        --prefix /build/project /build/wheel/*.whl

FROM ${BASE_IMAGE}
COPY --from=dependencies /opt/framedit /opt/framedit
# These folders belong to the user, so that new volumes mounted on them do too.
RUN ["install", "-d", "-m", "0700", "-o", "10001", "-g", "10001", "/data", "/data/artifacts"]
# Redis runs as another user and reads its configuration there.
RUN ["install", "-d", "-o", "10001", "-g", "10001", "/secrets"]
WORKDIR /data
# The project comes last: a new version is one small layer over those that are there.
COPY --from=project /build/project /opt/framedit
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="framedit-server" \
      org.opencontainers.image.description="The HTTP API of the FrameDiT video server" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/framedit/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    FRAMEDIT_DATA_DIR=/data FRAMEDIT_HOST=0.0.0.0 FRAMEDIT_PORT=8000
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Nothing of the project is imported for it: on a busy machine that would take longer than the answer.
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --retries=3 CMD ["/opt/framedit/bin/python", "-c", \
    "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8000, timeout=9); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/framedit/bin/framedit"]
CMD ["server"]
