"""The whole run: what it needs, checked at the door; its stages; what it would do."""

from edgecompress.pipeline.pipeline import Result, compress, run
from edgecompress.pipeline.planning import Plan, plan

__all__ = ["Plan", "Result", "compress", "plan", "run"]
