"""Make the bucket of an artifact store, once its server answers: `make_bucket.py s3://bucket/prefix`."""

import sys
import time

import s3fs

_TRIES = 60


def main() -> None:
    bucket = sys.argv[1].removeprefix("s3://").partition("/")[0]
    for _ in range(_TRIES):
        try:
            store = s3fs.S3FileSystem(skip_instance_cache=True)
            if not store.exists(bucket):
                store.mkdir(bucket)
            print(f"the bucket {bucket} is there")
            return
        except Exception as error:
            print(f"the object store is not there yet: {error}", file=sys.stderr)
            time.sleep(1)
    sys.exit(f"no bucket {bucket}: the object store did not answer")


if __name__ == "__main__":
    main()
