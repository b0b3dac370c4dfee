"""What every test relies on."""

from hypothesis import settings

# The same examples in every run, and no verdict about a busy machine's speed.
settings.register_profile("otel-mlmon", derandomize=True, deadline=None, database=None, print_blob=True)
settings.load_profile("otel-mlmon")
