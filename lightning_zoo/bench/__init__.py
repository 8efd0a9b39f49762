"""Benchmarks: ratios within one run, printed by ``python -m lightning_zoo benchmark``."""
