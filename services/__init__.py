"""Kino's services, each a package of the same rooms, and what they share: `runtime` and `media`."""
