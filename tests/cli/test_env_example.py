import re
from pathlib import Path

from jobs.settings import ClientSettings, Settings


def test_every_setting_is_in_the_example_with_its_default() -> None:
    text, _, _ = (
        (Path(__file__).parents[2] / ".env.example")
        .read_text()
        .partition("# The following variables are for docker-compose.yml")
    )
    shown = dict(re.findall(r"^(#? ?\w+)=(.*)$", text, re.MULTILINE))
    names = {name.lstrip("# ").removeprefix("FRAMEDIT_").lower(): name for name in shown}
    kinds = {field: kind for kind in (Settings, ClientSettings) for field in kind.model_fields}
    assert set(names) == set(kinds)
    for field, name in names.items():
        info = kinds[field].model_fields[field]
        # A line that is commented out is an example for a setting without a fixed default.
        assert name.startswith("#") == (info.default_factory is not None or info.default is None), field
        if not name.startswith("#"):
            assert kinds[field].model_validate({field: shown[name]}) == kinds[field].model_validate({}), field
