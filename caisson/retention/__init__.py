"""What goes from a Docker host, what stays, and why: decided here, done elsewhere."""
