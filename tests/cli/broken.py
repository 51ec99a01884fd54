"""A module that can't be imported."""

raise RuntimeError("it is\n broken")
