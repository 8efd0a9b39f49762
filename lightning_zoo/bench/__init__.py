"""Benchmarks: ratios within one run, printed as JSON lines by ``python -m lightning_zoo benchmark``."""
