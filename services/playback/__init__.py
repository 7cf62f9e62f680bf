"""Playback: streams titles from any moment, over gRPC and for HLS and DASH players.

It owns the leases (SQL): which account is watching on how many streams. Titles and segments belong to
catalog, the objects to the origin, positions to history, and what a user may watch to billing; it asks them
and caches what never changes.
"""
