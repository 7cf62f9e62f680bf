"""Titles and what can be played of them: the truth that search and playback follow.

Owns the titles, their media (time axis, renditions, published segments) and the objects below `media/`. A
title's state is derived from what is published; every change is pushed to the search index through an outbox.
"""
