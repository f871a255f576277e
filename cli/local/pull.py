"""A published model of the hub -> a folder of its files with a manifest. Imports no torch."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from cli.local.hub import DownloadError, HubModel, download, find_model

MANIFEST = "framedit-manifest.json"


@dataclass(frozen=True)
class Pulled:
    """A downloaded model: its commit, and the SHA-256 of each file by name."""

    model: HubModel
    folder: Path
    sha256: dict[str, str]


def pull(
    repository: str, revision: str, folder: Path | None, only: Collection[str], report: Callable[[str], None]
) -> Pulled:
    """Download a model and write the manifest. A second call downloads what is missing.

    Args:
        folder: where to put the files; `downloads/<name>-<commit>` by default.
        only: patterns of file names; all usable files by default.

    Raises:
        DownloadError: When something of it cannot be downloaded. Complete files stay for the next call.
    """
    model = find_model(repository, revision, only)
    report(f"{repository} at {revision} is commit {model.commit}: {len(model.files)} files, {_size(model.num_bytes)}")
    folder = folder or Path("downloads") / f"{repository.partition('/')[2]}-{model.commit[:12]}"
    _refuse_another_commit(folder, model)
    sha256 = download(model, folder, report)
    manifest = {
        "repository": repository,
        "revision": revision,
        "commit": model.commit,
        "endpoint": constants.ENDPOINT,
        "files": {file.name: {"bytes": file.num_bytes, "sha256": sha256[file.name]} for file in model.files},
    }
    temporary = folder / f".{MANIFEST}"
    temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / MANIFEST)
    return Pulled(model, folder, sha256)


def _refuse_another_commit(folder: Path, model: HubModel) -> None:
    path = folder / MANIFEST
    if not path.is_file():
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8")).get("commit")
    except (ValueError, AttributeError):
        raise DownloadError(f"{path} is not a manifest of framedit pull: name another folder with --to") from None
    if earlier != model.commit:
        raise DownloadError(
            f"{folder} holds commit {earlier} of a model: name another folder with --to, or remove this one"
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
