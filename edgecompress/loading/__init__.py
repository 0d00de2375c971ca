"""Model files, opened safely: `.keras`, `.h5`, SavedModel, `.tflite` -> Artifact."""

from __future__ import annotations

from edgecompress.loading.files import load, load_flatbuffer

__all__ = ["load", "load_flatbuffer"]
