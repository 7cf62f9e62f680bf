"""Counters every server keeps, named after OpenTelemetry's RPC conventions."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()

CALL_SECONDS = Histogram(
    "rpc_server_call_duration_seconds",
    "Time from a call's arrival to its status.",
    ["rpc_service", "rpc_method", "rpc_grpc_status_code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
ACTIVE_CALLS = Gauge(
    "rpc_server_active_calls", "Calls being handled.", ["rpc_service", "rpc_method"], registry=REGISTRY
)
INCIDENTS = Counter("kino_incidents_total", "Calls that ended in an unforeseen error.", registry=REGISTRY)


def render() -> bytes:
    """All metrics in Prometheus's text format."""
    return generate_latest(REGISTRY)
