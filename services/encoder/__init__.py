"""The encoder: turns one chunk of a source into one segment in every rung of a codec, and a sound track into segments.

It owns no data. Its workers pull tasks from the scheduler, read the source from the origin, run FFmpeg shut in, check
what came out to the tick, and write segments to keys of their own; whether a segment counts is not theirs to say.
"""
