"""Backends: a Program becomes C or C++ text. Each has `supports` and `generate`."""
