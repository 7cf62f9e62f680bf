"""The preprocessor: looks at a source before it is encoded, and plans.

It owns no data. It says what a file is and when each of its frames is shown, finds shots, measures motion and
loudness, splits the source into chunks on the absolute grid, chooses the ladder and ranks highlights.
"""
