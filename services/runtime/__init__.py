"""What every server shares: errors, clock, ids, settings, auth, SQL, objects, channels, the gRPC server.

Nothing here knows a service. The modules import as little as their job needs, so that a worker process that
only uses `errors`, `settings`, `objects` and `channels` loads neither SQLAlchemy nor Alembic.
"""
