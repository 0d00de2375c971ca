"""The whole run: what it needs, checked at the door; its stages; what it would do."""

from edgecompress.pipeline.pipeline import Result, compress, run

__all__ = ["Result", "compress", "run"]
