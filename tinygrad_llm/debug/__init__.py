"""Seeing a network learn: breakpoints on gradients, the first NaN, the tape as a table, two models side by side.

for step in loss.backward_steps():          # in your own frame: inspect, step.check(), replace a gradient, or stop
    print(step, step.check())
with debug.break_on(name="trf_blocks.3.*", norm_gt=10): loss.backward()  # in the op: `a` shows g, what was saved
with debug.break_on(op="softmax", forward=True): model(ids)
with debug.anomaly(): loss = model_and_loss(); loss.backward()
print(debug.explain(loss))
debug.set_trace()                           # pdb from here on, in which each step goes to the next line of maths
print(debug.report(loss, "report.html"))    # all of it as a page to step through in a browser
"""

from .alignment import AlignedText
from .anomaly import anomaly
from .breakpoints import break_on
from .compare import Comparison, compare
from .explain import Explanation, explain
from .graph import to_dot, to_mermaid
from .profile import profile
from .report import Report, report
from .stepper import set_trace
from .token_table import Row, TokenTable

__all__ = [
    "AlignedText",
    "Comparison",
    "Explanation",
    "Report",
    "Row",
    "TokenTable",
    "anomaly",
    "break_on",
    "compare",
    "explain",
    "profile",
    "report",
    "set_trace",
    "to_dot",
    "to_mermaid",
]
