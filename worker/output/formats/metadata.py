"""The metadata of a file: what generated it, in the fields that its format has for that."""

import json
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jobs.videos.record import VideoRequest

# IPTC's name for "created by a generative model".
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

SOFTWARE = "FrameDiT server"

# Text that a client wrote. It is in a file only where the operator wants that.
_PROMPTS = {"prompt", "original_prompt", "negative_prompt"}
# They do not change the video, or identify the client.
_PRIVATE: dict[str, Any] = {"metadata": True, "webhook_url": True, "priority": True, "reference": {"source_video_id"}}
_APART = {"model": True, "seed": True}

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmp:CreatorTool="{tool}"
    Iptc4xmpExt:DigitalSourceType="{source_type}">
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


@dataclass(frozen=True)
class FileMetadata:
    """The origin of a file. It holds no time and no id: the same request gives the same bytes."""

    content: dict[str, Any]

    @property
    def text(self) -> str:
        """JSON in ASCII, which every format can hold."""
        return json.dumps(self.content)

    def xmp(self) -> bytes:
        """An XMP packet (ISO 16684-1) with the digital source type, and the text as its description."""
        return _XMP.format(
            tool=escape(self.content["software"]), source_type=DIGITAL_SOURCE_TYPE, description=escape(self.text)
        ).encode()


def describe_request(request: VideoRequest, checkpoint: str, with_prompts: bool) -> FileMetadata:
    """The metadata of the file of `request`. `checkpoint` is the fingerprint of the model."""
    hidden: dict[str, Any] = _PRIVATE | _APART | ({} if with_prompts else dict.fromkeys(_PROMPTS, True))
    return FileMetadata(
        {
            "software": f"{SOFTWARE} {software_version()}",
            "digital_source_type": DIGITAL_SOURCE_TYPE,
            "model": request.model,
            "checkpoint": checkpoint,
            "seed": request.seed,
            "settings": request.model_dump(mode="json", exclude=hidden, exclude_none=True),
        }
    )


def software_version() -> str:
    try:
        return version("framedit-server")
    except PackageNotFoundError:  # a source tree that is not installed
        return "0"
