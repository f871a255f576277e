# A worker, with the demo checkpoints. Build from the repository's root, for CPUs or for CUDA:
#   docker build -f docker/worker.Dockerfile -t framedit-worker:cpu .
#   docker build -f docker/worker.Dockerfile -t framedit-worker:cuda --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130 .
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv /build/tools && python3 -m venv --without-pip /opt/framedit
# Dependencies come before the project: a change of its source leaves these layers as they are. The CUDA builds of torch
# bring CUDA's libraries with them; the driver belongs to the machine.
COPY docker/requirements/build.txt ./
RUN ["/build/tools/bin/pip", "install", "--require-hashes", "--no-deps", "-r", "build.txt"]
COPY docker/requirements/worker.txt ./
RUN /build/tools/bin/pip --python /opt/framedit/bin/python install --require-hashes --no-deps -r worker.txt
# Pinned by version: the builds of PyTorch's index have no hash in common. Its requirements are there by now, except for
# the libraries of CUDA.
COPY constraints.txt ./
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN /build/tools/bin/pip --python /opt/framedit/bin/python install torch -c constraints.txt --index-url "${TORCH_INDEX_URL}" \
    && /build/tools/bin/cyclonedx-py environment /opt/framedit/bin/python -o /opt/framedit/sbom.cdx.json

FROM dependencies AS project
COPY . /build/source
RUN /build/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /build/wheel /build/source \
    && /build/tools/bin/pip --python /opt/framedit/bin/python install --no-deps --no-index \
        --prefix /build/project /build/wheel/*.whl

FROM ${BASE_IMAGE}
# On CUDA, Triton compiles the launchers of its kernels with a C compiler.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN ["sh", "-c", "case \"$TORCH_INDEX_URL\" in */cpu) ;; *) apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/* ;; esac"]
COPY --from=dependencies /opt/framedit /opt/framedit
COPY checkpoints /checkpoints
# These folders belong to the user, so that new volumes mounted on them do too.
RUN ["install", "-d", "-m", "0700", "-o", "10001", "-g", "10001", "/data", "/data/artifacts", "/data/triton"]
WORKDIR /data
# The project comes last: a new version is one small layer over those that are there.
COPY --from=project /build/project /opt/framedit
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="framedit-worker" \
      org.opencontainers.image.description="A worker of the FrameDiT video server, which owns one device or several" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Threads that wait for each other give their core away: spinning, as they do else, takes it from the other workers and
# processes of the machine, and from themselves.
ENV PATH=/opt/framedit/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE \
    TRITON_CACHE_DIR=/data/triton FRAMEDIT_DATA_DIR=/data FRAMEDIT_CHECKPOINTS=/checkpoints \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=30s --start-period=120s --retries=3 CMD ["/opt/framedit/bin/framedit", "health", "worker"]
ENTRYPOINT ["/opt/framedit/bin/framedit"]
CMD ["worker"]
