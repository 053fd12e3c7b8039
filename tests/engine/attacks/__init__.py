"""Attacks on the guarded socket, as tables: each is sent to a guard before a real engine, and to the engine itself."""
