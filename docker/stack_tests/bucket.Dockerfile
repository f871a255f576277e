# A stand-in for MinIO where its image is not to be had: moto's S3 server, which forgets when it ends.
#   docker build -f docker/stack_tests/bucket.Dockerfile -t framedit-bucket . && MINIO_IMAGE=framedit-bucket docker compose --profile s3 up
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
COPY constraints.txt ./
RUN ["python3", "-m", "pip", "install", "--no-cache-dir", "moto[s3]", "flask", "flask-cors", "-c", "constraints.txt"]
# What Compose gives as MinIO's command is not looked at. Like MinIO it does not start when it cannot write to its volume.
ENTRYPOINT ["python3", "-c", "from moto.server import main; open('/minio/probe', 'w').close(); main(['-H', '0.0.0.0', '-p', '9000'])"]
