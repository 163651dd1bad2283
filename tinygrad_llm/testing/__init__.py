"""Gradients that can be trusted: checks for your own ops and models, and the ones that ours pass.

    from tinygrad_llm.testing import OpSpec, check_op, gradcheck
    gradcheck(lambda x, w: tg.ops.linear(x, w), x, w)
    check_op(OpSpec(my_op, samples=lambda rng: [(rng.standard_normal((3, 4)),)], reference=my_numpy_function))

Nothing here needs hypothesis, except `strategies`, which is imported only when asked for:
`from tinygrad_llm.testing import strategies` (MissingPackage without it).
"""

from .assertions import assert_close, assert_no_alias, assert_unchanged
from .battery import applicable, check_op
from .gradcheck import GradcheckError, GradcheckResult, gradcheck, gradcheck_module
from .language_model import check_language_model
from .mutants import Mutant, kill_table, mutants
from .numerical import numerical_grad
from .spec import OpSpec, Sample

__all__ = [
    "GradcheckError",
    "GradcheckResult",
    "Mutant",
    "OpSpec",
    "Sample",
    "applicable",
    "assert_close",
    "assert_no_alias",
    "assert_unchanged",
    "check_language_model",
    "check_op",
    "gradcheck",
    "gradcheck_module",
    "kill_table",
    "mutants",
    "numerical_grad",
]
