"""A plugin of pytest: Hypothesis does not look for the smallest example, because any example kills a mutant."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("unshrunk", deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
settings.load_profile("unshrunk")
