import re
from pathlib import Path

from pydantic_core import PydanticUndefined

from jobs.settings import ClientSettings, Settings


def test_every_setting_is_in_the_example_with_its_default() -> None:
    text, _, _ = (
        (Path(__file__).parents[2] / ".env.example").read_text().partition("# What follows is for docker-compose.yml")
    )
    shown = dict(re.findall(r"^(#? ?\w+)=(.*)$", text, re.MULTILINE))
    names = {name.lstrip("# ").removeprefix("FRAMEDIT_").lower(): name for name in shown}
    kinds = {field: kind for kind in (Settings, ClientSettings) for field in kind.model_fields}
    assert set(names) == set(kinds)
    for field, name in names.items():
        default = kinds[field].model_fields[field].default
        # A line that is commented out is an example of what has no default of its own.
        assert name.startswith("#") == (default is None or default is PydanticUndefined), field
        if not name.startswith("#"):
            assert kinds[field].model_validate({field: shown[name]}) == kinds[field].model_validate({}), field
