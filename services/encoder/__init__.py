"""The encoder: makes one chunk of a source a segment in every rung of a codec, and sound tracks segments.

It owns no data. Its workers pull tasks from the scheduler, read sources from the origin, run FFmpeg shut in,
check what came out to the tick, and write segments to keys of their own; others say whether one counts.
"""
