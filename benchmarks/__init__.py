"""Measure orch, side by side with CRIU where one is given: ``python -m benchmarks --help``."""
