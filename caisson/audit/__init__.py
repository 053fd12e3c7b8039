"""The audit of a host: its containers, its engine's settings, and what looks after its disk, against ordered rules."""
