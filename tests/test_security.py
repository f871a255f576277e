"""SECURITY.md claims nothing that no test holds."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (.+) \| `([\w/.]+\.py)::(\w+)` \|$")


def test_every_claim_names_a_test_that_there_is() -> None:
    section = (ROOT / "SECURITY.md").read_text().partition("## Claims")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        match = ROW.match(row)
        assert match, row
        _, path, name = match.groups()
        functions = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(node, "name")}
        assert name in functions, row
