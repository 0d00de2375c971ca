"""Compression without data: statistics from the weights, repair, rounding, ranges."""
