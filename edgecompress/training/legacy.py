"""tf_keras and tensorflow-model-optimization, imported when they are needed."""

from __future__ import annotations

import os
from typing import Any

from edgecompress.errors import ToolError

_SWITCH = "TF_USE_LEGACY_KERAS"


def tf_keras() -> Any:
    """The module tf_keras (Keras 2); ToolError where it is not installed."""
    try:
        import tf_keras as found
    except ImportError as error:
        raise _missing("tf-keras") from error
    return found


def tfmot() -> Any:
    """The module tensorflow_model_optimization; ToolError where it is not installed.

    Its import turns `tf.keras` into tf_keras by a variable of the environment, which child
    processes would inherit: it is put back as it was.
    """
    before = os.environ.get(_SWITCH)
    try:
        import tensorflow_model_optimization as found
    except ImportError as error:
        raise _missing("tensorflow-model-optimization") from error
    finally:
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before
    return found


def _missing(package: str) -> ToolError:
    return ToolError(f"this stage needs {package}; pip install 'edgecompress[train]'")
