"""From latents to files: decoding, MP4, thumbnails, previews."""
