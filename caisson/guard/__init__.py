"""The guard: a Docker socket on which nothing is possible but building one image."""
