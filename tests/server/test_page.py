"""The page's files. What the page does is tested in tests/browser."""

import re
from pathlib import Path

import httpx
import pytest

from server.routes.page import WEB

FILES = sorted(path.name for path in WEB.iterdir())
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_with_its_type_and_a_strict_policy(name: str, http: httpx.Client) -> None:
    answer = http.get("/" if name == "index.html" else f"/web/{name}")
    assert answer.status_code == 200
    assert answer.content == (WEB / name).read_bytes()
    assert answer.headers["content-type"].split(";")[0] == TYPES[Path(name).suffix]
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_page_files_are_revalidated_with_their_etag(http: httpx.Client) -> None:
    first = http.get("/web/app.js")
    again = http.get("/web/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert http.head("/").headers["content-length"] == str((WEB / "index.html").stat().st_size)


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapp.py", "%2e%2e/app.py", "sub/app.js"])
def test_no_other_file_is_served(name: str, http: httpx.Client) -> None:
    assert http.get(f"/web/{name}").status_code == 404


def test_nothing_is_inline_and_nothing_is_external() -> None:
    html = (WEB / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    for path in WEB.iterdir():
        outside = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text(encoding="utf-8")))
        assert outside <= {"http://www.w3.org/2000/svg"}, path.name


def test_every_element_that_a_script_uses_exists() -> None:
    html = (WEB / "index.html").read_text(encoding="utf-8")
    ids = set(re.findall(r'\sid="([\w-]+)"', html))
    scripts = "".join(path.read_text(encoding="utf-8") for path in WEB.glob("*.js"))
    assert set(re.findall(r'(?:getElementById|#part)\("([\w-]+)"\)', scripts)) <= ids
    assert {f"icon-{name}" for name in re.findall(r"#icon-(\w+)", scripts + html)} <= ids
