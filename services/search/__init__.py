"""Finds titles by name, forgiving typos, joined words, prefixes, accents and scripts.

Owns the index, which is never the truth: the catalog pushes every change of a title, and `RebuildIndex` makes
the index anew from the catalog at any time. What a caller may not see is left out before ranking.
"""
