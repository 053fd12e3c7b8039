"""Caisson's own HTTP API, for callers who must not have the keys to all of Prefect. It imports no Prefect."""
