"""What each profile watched and where it stopped.

Owns the views: watched intervals as a union, the position as a register ordered by the server time at which
the playback was started. Reports may come late, twice or out of order; deleted history stays deleted.
"""
