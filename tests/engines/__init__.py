"""Real engines for the tests, as plain processes: installed into the cache, started once per run."""
