"""A small language for one line of maths: `a = 2; b = a + a; b * b`. Numbers, names, operators and the ops, nothing else."""

from __future__ import annotations

import ast
import operator
from typing import Any

from ..engine import Op, Tensor
from ..errors import ConfigError

_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.USub: operator.neg,
}


def evaluate(text: str) -> Tensor:
    """The last expression, summed to a scalar. A name that is given a number or a list of numbers is a leaf with a gradient.

    `x = [1, -2]; sum(tanh(x) * 3)`. ConfigError, with the part that is meant, for all that is not this.
    """
    try:
        statements = ast.parse(text.strip(), mode="exec").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"expression {text!r}: {error}") from None
    names: dict[str, Any] = {}
    result: Any = None
    for statement in statements:
        if (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            name = statement.targets[0].id
            value = _value(statement.value, names)
            result = value if isinstance(value, Tensor) else _tensor(value, requires_grad=True)
            result.name = result.name or name
            names[name] = result
        elif isinstance(statement, ast.Expr):
            result = _value(statement.value, names)
        else:
            raise _refused(statement)
    if not isinstance(result, Tensor) or result.node is None:
        raise ConfigError(f"expression {text!r}: nothing to differentiate: write for example 'a = 2; a * a'")
    return result if result.size == 1 else result.sum()


def _value(part: ast.AST, names: dict[str, Any]) -> Any:
    if isinstance(part, ast.Constant) and (part.value is None or isinstance(part.value, (int, float, str))):
        return part.value
    if isinstance(part, (ast.List, ast.Tuple)):
        return [_value(item, names) for item in part.elts]
    if isinstance(part, ast.Name):
        if part.id not in names:
            raise ConfigError(f"expression: {part.id} has no value: write '{part.id} = 2; ...' first")
        return names[part.id]
    if isinstance(part, ast.BinOp) and type(part.op) in _OPERATORS:
        left, right = (_operand(side, names) for side in (part.left, part.right))
        try:
            return _OPERATORS[type(part.op)](left, right)
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise ConfigError(f"expression: {ast.unparse(part)}: {error}") from None
    if isinstance(part, ast.UnaryOp) and type(part.op) in _OPERATORS:
        value = _value(part.operand, names)
        return -value if isinstance(value, (int, float, Tensor)) else -_operand(part.operand, names)
    if isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
        if part.func.id not in Op.registry:
            raise ConfigError(f"expression: there is no op {part.func.id}: one of {', '.join(sorted(Op.registry))}")
        options = {keyword.arg or "": _value(keyword.value, names) for keyword in part.keywords}
        try:
            return Op.registry[part.func.id](*(_value(argument, names) for argument in part.args), **options)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise ConfigError(f"expression: {ast.unparse(part)}: {error}") from None
    raise _refused(part)


def _operand(part: ast.AST, names: dict[str, Any]) -> Any:
    """A tensor, or a float: powers of Python's integers could take forever. A list is a constant tensor."""
    value = _value(part, names)
    if isinstance(value, Tensor):
        return value
    return _tensor(value) if isinstance(value, list) else _float(value)


def _tensor(value: Any, requires_grad: bool = False) -> Tensor:
    try:
        return Tensor(_floats(value), requires_grad=requires_grad)
    except ValueError as error:
        raise ConfigError(f"expression: {value}: {error}") from None


def _floats(value: Any) -> Any:
    return [_floats(item) for item in value] if isinstance(value, list) else _float(value)


def _float(value: Any) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    raise ConfigError(f"expression: {value!r} is not a number: a name is given a number, or a list of numbers")


def _refused(part: ast.AST) -> ConfigError:
    return ConfigError(
        f"expression: {ast.unparse(part)!r} is not allowed: use numbers, lists, names, + - * / ** @ and the ops, as in "
        "'a = 2; b = tanh(a); a * b'"
    )
