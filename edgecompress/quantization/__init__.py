"""Keras to `.tflite`: the quantising stage, and where ranges and grids of weights come from."""

from edgecompress.quantization.quantization import LayerError, activations, quantize, sqnr

__all__ = ["LayerError", "activations", "quantize", "sqnr"]
