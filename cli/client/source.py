"""The image or video that a requested video starts from: a file of this machine, or a video of the server."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import InvalidRequestError
from jobs.videos.record import is_video_id


@dataclass(frozen=True)
class Source:
    """A file or an id, and the route and the field that take it."""

    path: str
    field: str
    file_or_id: str

    @staticmethod
    def of(
        image: str | None, video: str | None, edit: str | None, extend: str | None, *, files_only: bool = False
    ) -> "Source | None":
        """The source that the options name, None without any. `files_only`: there is no server that knows ids.

        :raises InvalidRequestError: when they name more than one, or a file that does not exist.
        """
        options: dict[str, tuple[str, str, str | None]] = {
            "--image": ("/v1/videos", "input_reference", image),
            "--video": ("/v1/videos", "input_reference", video),
            "--edit": ("/v1/videos/edits", "video", edit),
            "--extend": ("/v1/videos/extensions", "video", extend),
        }
        given = {name: Source(path, field, value) for name, (path, field, value) in options.items() if value}
        if len(given) > 1:
            raise InvalidRequestError(f"{' and '.join(given)} exclude each other; send one of them")
        for name, source in given.items():
            if files_only and not Path(source.file_or_id).is_file():
                raise InvalidRequestError(f"{name} is {source.file_or_id!r}, which is not a file")
            if not is_video_id(source.file_or_id) and not Path(source.file_or_id).is_file():
                raise InvalidRequestError(
                    f"{name} is {source.file_or_id!r}, which is neither a file nor the id of a video"
                )
        return next(iter(given.values()), None)

    def content(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The body of the request with `fields`, as options of an HTTP client."""
        if is_video_id(self.file_or_id):
            return {"json": {**fields, self.field: {"id": self.file_or_id}}}
        path = Path(self.file_or_id)
        return {"data": dict(fields), "files": {self.field: (path.name, path.read_bytes())}}
