"""Download of a published model from a Hugging Face hub: which files, and each one verified."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils._headers import build_hf_headers

from jobs.errors import FrameditError

TIMEOUT_SECONDS = 30
DEFAULT_REVISION = "main"

# Configurations, tokenizers and licences.
_TEXT_FILES = ("*.json", "spiece.model", "tokenizer.model", "vocab.txt", "merges.txt", "README.md", "LICENSE*")
_WEIGHTS = "*.safetensors"
# Pickles of other names may hold code.
_PUBLISHED_PT = re.compile(
    r"((framedit|latte|dit3d).*|t2v|ffs|sky|skytimelapse|taichi|taichi-hd|ucf101|ema|model|\d{7})\.pt", re.IGNORECASE
)
_VARIANT = re.compile(r"\.(fp16|bf16|non_ema)\b")


class DownloadError(FrameditError):
    """A model cannot be downloaded; the message says what to change."""

    code = "download"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        sha256: the digest that the hub states for large files.
        git_sha1: the digest of a git blob, which the hub states for all others.
    """

    name: str
    num_bytes: int
    sha256: str | None
    git_sha1: str


@dataclass(frozen=True)
class HubModel:
    """A repository at one commit, with the files that a conversion can use."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


def split_source(source: str) -> tuple[str, str]:
    """Split `owner/name@revision`. The revision is `main` by default."""
    repository, _, revision = source.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or source.endswith("@"):
        raise DownloadError(f"{source!r} is not a model of the hub: give OWNER/NAME or OWNER/NAME@REVISION")
    return repository, revision or DEFAULT_REVISION


def find_model(repository: str, revision: str, only: Collection[str]) -> HubModel:
    """Resolve the revision to a commit, and choose the files: of all usable ones, those that match a pattern of `only`.

    Raises:
        DownloadError: When the hub, the repository or the revision cannot be reached, or no file is usable.
    """
    with _one_sentence(repository, revision):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS)
    if info.sha is None or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise DownloadError(f"{constants.ENDPOINT} names no commit for {repository} at {revision}")
    usable = [sibling for sibling in info.siblings or () if is_usable(sibling.rfilename)]
    chosen = [sibling for sibling in usable if not only or any(fnmatch(sibling.rfilename, each) for each in only)]
    if not chosen:
        raise DownloadError(
            f"{repository} at {info.sha} holds no file to download"
            + (f" that matches {', '.join(only)}" if usable else ": safetensors or a published .pt are needed")
        )
    return HubModel(repository, info.sha, tuple(map(_file, chosen)))


def is_usable(name: str) -> bool:
    """Return whether a file of a repository is downloaded: never code, never a pickle of an unknown name."""
    path = PurePosixPath(name)
    if path.is_absolute() or "\\" in name or any(part.startswith(".") for part in path.parts):
        return False
    if fnmatch(path.name, _WEIGHTS):
        return _VARIANT.search(path.name) is None
    return _PUBLISHED_PT.fullmatch(path.name) is not None or any(fnmatch(path.name, each) for each in _TEXT_FILES)


def download(model: HubModel, folder: Path, report: Callable[[str], None]) -> dict[str, str]:
    """Download the files that `folder` lacks, continue partial ones, and return the SHA-256 of each by name.

    Raises:
        DownloadError: When the hub cannot be reached, or a file is not the one that the hub describes.
    """
    return {file.name: _download_file(model, file, folder / file.name, report) for file in model.files}


def _download_file(model: HubModel, file: HubFile, path: Path, report: Callable[[str], None]) -> str:
    if path.is_file():
        if (found := _matching_sha256(path, file)) is not None:
            report(f"{file.name}: already downloaded")
            return found
        report(f"{file.name}: differs from the hub's, downloading it again")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The digest in the name: the rest of another version's file is never appended to.
    partial = path.with_name(f".{path.name}.{(file.sha256 or file.git_sha1)[:12]}.partial")
    with _one_sentence(model.repository, model.commit):
        _fetch(model, file, partial)
    sha256 = _matching_sha256(partial, file)
    if sha256 is None:
        partial.unlink()
        raise DownloadError(
            f"{file.name} of {model.repository} arrived damaged: its hash is not the one that the hub states. "
            "It was deleted; run the command again"
        )
    partial.replace(path)
    return sha256


def _fetch(model: HubModel, file: HubFile, partial: Path) -> None:
    with partial.open("ab") as opened:
        if opened.tell() > file.num_bytes:
            opened.truncate(0)
        http_get(
            hf_hub_url(model.repository, file.name, revision=model.commit),
            opened,
            resume_size=opened.tell(),
            headers={**build_hf_headers(), "Accept-Encoding": "identity"},
            expected_size=file.num_bytes,
            displayed_filename=file.name,
        )


def _matching_sha256(path: Path, file: HubFile) -> str | None:
    """Return the SHA-256 of a file, None if it is not the file that the hub describes."""
    if path.stat().st_size != file.num_bytes:
        return None
    sha256 = hashlib.sha256()
    git_sha1 = hashlib.sha1(f"blob {file.num_bytes}\0".encode(), usedforsecurity=False)
    with path.open("rb") as opened:
        while block := opened.read(1 << 20):
            sha256.update(block)
            if file.sha256 is None:
                git_sha1.update(block)
    matches = sha256.hexdigest() == file.sha256 if file.sha256 else git_sha1.hexdigest() == file.git_sha1
    return sha256.hexdigest() if matches else None


def _file(sibling: RepoSibling) -> HubFile:
    if sibling.size is None or sibling.blob_id is None:
        raise DownloadError(f"{constants.ENDPOINT} states no size and no hash of {sibling.rfilename}")
    return HubFile(sibling.rfilename, sibling.size, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id)


@contextmanager
def _one_sentence(repository: str, revision: str) -> Iterator[None]:
    """Turn the errors of the hub's library, and of the network below it, into one sentence each."""
    hub = constants.ENDPOINT
    try:
        yield
    except GatedRepoError as error:
        raise DownloadError(
            f"{repository} is gated: accept its terms at {hub}/{repository} and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{repository} has no revision {revision}: give a branch, tag or commit of it") from error
    except RepositoryNotFoundError as error:
        raise DownloadError(
            f"{hub} has no model {repository}, or it is private: check the name, or set HF_TOKEN"
        ) from error
    except HFValidationError as error:
        raise DownloadError(f"{repository!r} is not the name of a model on the hub") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise DownloadError(f"{hub} answered {status} for {repository}: run the command again later") from error
    except OfflineModeIsEnabled as error:
        raise DownloadError("HF_HUB_OFFLINE is set: unset it to download") from error
    except httpx2.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise DownloadError(
            f"{hub} cannot be reached ({reason}): check the network, or set HF_ENDPOINT to a mirror. "
            "The command continues where it stopped"
        ) from error
    except OSError as error:
        raise DownloadError(f"the download of {repository} stopped: {error}") from error
