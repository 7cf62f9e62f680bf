"""Resumable uploads into the origin.

Owns uploads and the bytes received so far. When all are there and checked, the file becomes an object of
the origin, is looked at by the preprocessor, and its job is started; from then on it belongs to the
scheduler.
"""
