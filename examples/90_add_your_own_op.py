"""Add an op of your own, prove its gradient, and see what a wrong sign looks like.

    python examples/90_add_your_own_op.py          # 0 minutes: about a second

Shows: a forward and a backward on plain arrays bound by one line, a row of what is known about the op, the battery that it
passes, the same op with one wrong sign and the failure this prints, and the wrong backwards that the battery was tried on.
"""

import argparse
import math

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm.testing import GradcheckError, OpSpec, check_op, gradcheck, kill_table


def softplus_forward(x):
    """y = log(1 + e^x)"""
    return np.logaddexp(x, 0), (x,)


def softplus_backward(g, x):
    """dx = g / (1 + e^-x)"""
    return (g / (1 + np.exp(-x)),)


softplus = tg.Op(softplus_forward, softplus_backward)

spec = OpSpec(
    softplus,
    samples=lambda rng: [(rng.standard_normal((3, 4)),), (rng.uniform(-30, 30, 5),)],
    reference=np.vectorize(lambda x: max(x, 0) + math.log1p(math.exp(-abs(x))), otypes=[float]),
    elementwise=True,  # so it is also tried on 0-d, empty, transposed and read-only arrays
    special=[((np.array([0.0, 1e4, -1e4]),), [np.log(2), 1e4, 0.0], ([0.5, 1.0, 0.0],))],
)


def wrong_softplus_backward(g, x):
    """The sign of the exponent is wrong."""
    return (g / (1 + np.exp(x)),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="changes nothing here: it takes a second anyway")
    parser.parse_args()

    x = tg.Tensor([-1.0, 0.0, 2.0], requires_grad=True)
    softplus(x).sum().backward()
    print("softplus at -1, 0, 2 has the slopes", x.grad.round(4).tolist())

    print("\nPassed:", ", ".join(check_op(spec)))

    print("\nWith the wrong sign:\n")
    wrong_softplus = tg.Op(softplus_forward, wrong_softplus_backward)
    try:
        gradcheck(wrong_softplus, np.array([[0.5, -1.0], [2.0, 0.0]]))
    except GradcheckError as error:
        print(error)

    kills = kill_table(spec)
    print(f"\n{len(kills)} other wrong backwards, and the check that noticed each:")
    for fault, check in kills.items():
        print(f"    {fault:52} {check}")


if __name__ == "__main__":
    main()
