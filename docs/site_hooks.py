"""Hooks of mkdocs: add the pages outside docs/, every file that a page links to, and the API reference.

The repository's own links work in an editor and on a code host. Here they become links of the site.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from starlette.testclient import TestClient

from jobs.settings import Settings
from server.app import create_app

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
API_REFERENCE = "reference.md"
# Pages outside docs/, and their place on the site.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "training/README.md": "training.md",
}

_LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all that the site takes from outside docs/."""
    pages = [*PAGES, *(DOCS + file.src_uri for file in files.documentation_pages())]
    linked = {target for page in pages for target in _linked_files(page)}
    for path in sorted({*PAGES, *linked}):
        if not path.startswith(DOCS):
            files.append(File.generated(config, _site_path(path), abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, API_REFERENCE, content=api_reference()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links between files of the repository to links between files of the site."""
    site_path = page.file.src_uri
    source = next((path for path, place in PAGES.items() if place == site_path), DOCS + site_path)

    def rewritten(link: re.Match[str]) -> str:
        target = _repository_path(source, link[1])
        if target is None:
            return link[1]
        return posixpath.relpath(_site_path(target), posixpath.dirname(site_path))

    return _LINK.sub(rewritten, markdown)


def api_reference() -> str:
    """The server's own page /docs as Markdown, with headings that the table of contents and the search can find."""
    client = TestClient(create_app(Settings(redis_url="redis://127.0.0.1:1/0")), base_url="http://127.0.0.1")
    page = client.get("/docs").text.partition("</h1>")[2]
    for level in (2, 3):
        page = re.sub(rf"<h{level}[^>]*>(.*?)</h{level}>", rf"\n\n{'#' * level} \1\n\n", page)
    without_its_own_links = re.sub(r"<p><a href=.*", "", page, count=1)
    return f"# API reference\n\nThe server shows the same at `/docs`.\n\n{without_its_own_links}"


def _linked_files(page: str) -> list[str]:
    targets = (_repository_path(page, link) for link in _LINK.findall((ROOT / page).read_text(encoding="utf-8")))
    return [target for target in targets if target is not None and (ROOT / target).is_file()]


def _repository_path(page: str, link: str) -> str | None:
    """The path below the repository's root that `link` names on `page`. None for an address on the web."""
    return None if "://" in link else posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _site_path(path: str) -> str:
    return PAGES.get(path, path.removeprefix(DOCS))
