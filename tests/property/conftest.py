"""Property tests are about results: on a busy machine an example may take long, which is no failure.

``HYPOTHESIS_PROFILE=thorough`` takes thousands of examples each (``make thorough``); ``quick`` is for breaking the code
by hand, to see whether a test fails.
"""

import os

from hypothesis import HealthCheck, Phase, settings

_SLOW = [HealthCheck.too_slow]
settings.register_profile("caisson", deadline=None, suppress_health_check=_SLOW)
settings.register_profile("thorough", deadline=None, suppress_health_check=_SLOW, max_examples=2_000)
settings.register_profile(
    "quick", deadline=None, suppress_health_check=_SLOW, max_examples=300, phases=[Phase.generate], database=None
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "caisson"))
