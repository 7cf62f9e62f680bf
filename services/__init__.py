"""Kino's services, each a package of the same rooms, and the two libraries they share: `runtime` and `media`."""
