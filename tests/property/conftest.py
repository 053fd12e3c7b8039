"""Property tests are about results: on a busy machine an example may take long, which is no failure."""

from hypothesis import settings

settings.register_profile("caisson", deadline=None)
settings.load_profile("caisson")
