"""`make abuse`: the long form of all attacks, and a table of their costs."""

import sys
import tempfile
from pathlib import Path

from tests.abuse.attacks import ATTACKS
from tests.abuse.card import CARD
from tests.abuse.report import HEADER, measure
from tests.abuse.server import running


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), CARD) as server:
        print(HEADER, flush=True)
        costs = []
        for attack in ATTACKS:
            costs.append(measure(server, attack, scale=1))
            print(costs[-1], flush=True)
    return 0 if all(cost.is_fine for cost in costs) else 1


if __name__ == "__main__":
    sys.exit(main())
