"""The media library that services share: media time, ISO BMFF and CMAF, and FFmpeg inside a sandbox.

It owns no data and knows no service. `time` holds the one rule of media time, `bmff` and `cmaf` read and
write fragmented MP4, `sandbox` is the only way a file that came from outside may be opened, and `testfilm`
makes films whose every frame can be recognised after encoding.
"""
