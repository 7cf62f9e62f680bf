"""The `kino` command: runs the suite on one machine, and talks to any Kino through its gateway."""
