"""What Hypothesis finds through its entry point: three profiles, by names that are nobody else's.

A module of its own, because Hypothesis loads it in the test runs of all projects that are installed beside this one: it does
not import even NumPy, and so costs nothing there. Use one with `pytest --hypothesis-profile=tinygrad-llm-nightly`.
"""


def register_profiles() -> None:
    """dev: seconds, while writing. ci: the same examples in every run. nightly: an hour's worth."""
    from hypothesis import HealthCheck, settings

    common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("tinygrad-llm-dev", max_examples=10, **common)
    settings.register_profile("tinygrad-llm-ci", max_examples=30, derandomize=True, database=None, **common)
    settings.register_profile("tinygrad-llm-nightly", max_examples=3000, **common)
