"""One fixture for each real engine: started at its first use, once per run, or a running one that is named.

A test that uses one carries the marker `engine`. An engine that can't be had fails the test.
"""
