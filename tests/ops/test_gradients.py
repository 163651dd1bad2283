"""Every op against measured derivatives, at values that Hypothesis chooses: zeros, ties and tiny ones among them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from op_specs import MORE_SPECS, SPECS

from tinygrad_llm.testing import Sample, gradcheck


@st.composite
def inputs_of(draw, spec):
    """One of the spec's samples, its numbers drawn anew from the spec's domain."""
    sample = draw(st.sampled_from([s for s in spec.draw() if all(a is None or a.size for a in s.arrays)]))
    low, high = spec.domain
    numbers = st.floats(low, high, allow_subnormal=False)
    return Sample(
        tuple(None if a is None else draw(arrays(np.float64, a.shape, elements=numbers)) for a in sample.arrays),
        sample.options,
    )


@pytest.mark.parametrize("spec", SPECS + MORE_SPECS, ids=lambda spec: spec.name)
def test_gradient(spec):
    @given(inputs_of(spec))
    def check(sample):
        present = [a for a in sample.arrays if a is not None]

        def fn(*tensors):
            remaining = iter(tensors)
            return spec.op(*(None if a is None else next(remaining) for a in sample.arrays), **sample.fresh_options())

        result = gradcheck(fn, *present, raise_on_failure=False)
        assert result or (result.kinks and not result.checked), str(
            result
        )  # zeros may be nothing but kinks, each in order

    check()
