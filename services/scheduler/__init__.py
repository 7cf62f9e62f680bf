"""Turns a source into a playable title: a durable workflow whose tasks are pulled by workers under leases.

Owns jobs, their tasks with every attempt, the leases, and the decision of which task goes to which worker.
What is playable belongs to catalog, to which finished segments are published; the work itself is done by
workers.
"""
