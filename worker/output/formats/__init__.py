"""The file formats of results: MP4, WebM, GIF, WebP and PNG."""
