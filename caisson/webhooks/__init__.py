"""Webhooks of git hosts: what a delivery says, whether it is authentic, what it builds, what is told back. Pure."""
