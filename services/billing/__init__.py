"""Billing: what users subscribe to, what they owe and what they paid.

Owns plans, subscriptions, invoices and a double-entry ledger, and tells other services what a user may
watch. Card data never comes here: payments are recorded by an operator.
"""
