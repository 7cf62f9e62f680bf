"""Benchmarks: what is promised in numbers, measured. Run by `kino bench NAME` from a checkout."""
