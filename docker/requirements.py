"""Print what the project needs, from pyproject.toml: `requirements.py pyproject.toml [extra ...]`.

So that an image can install it before it has seen the source.
"""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
    extras = project["optional-dependencies"]
    print(*project["dependencies"], *(line for extra in sys.argv[2:] for line in extras[extra]), sep="\n")


if __name__ == "__main__":
    main()
