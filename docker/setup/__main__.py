"""What is done before everything else starts: `python setup FOLDER`, where the folder is for the secrets."""

import os

from published import check_published
from redis_secrets import main

if __name__ == "__main__":
    check_published(os.environ)
    main()
