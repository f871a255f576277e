# A worker, with the demo checkpoints. Build from the repository's root, for CPUs or for CUDA:
#   docker build -f docker/worker.Dockerfile -t framedit-worker:cpu .
#   docker build -f docker/worker.Dockerfile -t framedit-worker:cuda --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130 .
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv /build/tools && python3 -m venv --without-pip /opt/framedit
# What the project needs comes before the project, the largest first: a change of its source leaves these layers as they
# are. The CUDA builds of torch bring CUDA's libraries with them; only the driver is the machine's.
COPY constraints.txt ./
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN /build/tools/bin/pip --python /opt/framedit/bin/python install torch -c constraints.txt --index-url "${TORCH_INDEX_URL}"
RUN ["/build/tools/bin/pip", "install", "hatchling", "-c", "constraints.txt"]
COPY docker/requirements.py pyproject.toml ./
RUN /build/tools/bin/python requirements.py pyproject.toml worker s3 tracing > requirements.txt \
    && /build/tools/bin/pip --python /opt/framedit/bin/python install -r requirements.txt -c constraints.txt

FROM dependencies AS project
COPY . /build/source
RUN /build/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /build/wheel /build/source \
    && /build/tools/bin/pip --python /opt/framedit/bin/python install --no-deps --no-index \
        --prefix /build/project /build/wheel/*.whl

FROM ${BASE_IMAGE}
COPY --from=dependencies /opt/framedit /opt/framedit
COPY checkpoints /checkpoints
# These folders belong to the user, so that new volumes mounted on them do too.
RUN ["install", "-d", "-o", "10001", "-g", "10001", "/data", "/data/artifacts"]
WORKDIR /data
# The project comes last: a new version is one small layer over those that are there.
COPY --from=project /build/project /opt/framedit
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="framedit-worker" \
      org.opencontainers.image.description="A worker of the FrameDiT video server, which owns one device or several" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Threads that wait for each other give their core away: spinning, as they do else, takes it from the other workers and
# processes of the machine, and from themselves.
ENV PATH=/opt/framedit/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE \
    FRAMEDIT_DATA_DIR=/data FRAMEDIT_CHECKPOINTS=/checkpoints \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=30s --start-period=120s --retries=3 CMD ["/opt/framedit/bin/framedit", "health", "worker"]
ENTRYPOINT ["/opt/framedit/bin/framedit"]
CMD ["worker"]
