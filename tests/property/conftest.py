"""Property tests are about results: on a busy machine an example may take long, which is no failure.

``HYPOTHESIS_PROFILE=thorough`` takes thousands of examples each; ``quick`` is for breaking the code by hand, to see
whether a test fails.
"""

import os

from hypothesis import Phase, settings

settings.register_profile("caisson", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=5_000)
settings.register_profile("quick", deadline=None, max_examples=300, phases=[Phase.generate], database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "caisson"))
