# A stand-in for the image of Prometheus where that is not to be had: Debian's package, laid out in the same way.
#   docker build -f docker/stack_tests/prometheus.Dockerfile -t framedit-prometheus .
#   PROMETHEUS_IMAGE=framedit-prometheus docker compose --profile monitoring up
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
RUN apt-get update && apt-get install -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65534 -g 65534 /prometheus
USER 65534:65534
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
