"""What a report shows of a model that reads a text: attention, the loss of each token, and what each layer would say next."""

from __future__ import annotations

import math
from contextvars import Context
from typing import Any

import numpy as np

from ..engine import no_grad
from ..errors import ConfigError, DataError
from ..models import LanguageModel
from ..nn.module import evaluating
from ..ops import cross_entropy, softmax
from ..ops.matrix import check_ids
from ..text.view import visible
from .alignment import codes
from .picture import number

_TOKENS = 2048  # whose loss is shown
_LOOKED_AT = 64  # tokens on the axes of an attention map, and in the logit lens, at most
_CELLS = 600_000  # of all attention maps together
_CANDIDATES = 3  # of the lens, at each place


def read_text(model: Any, ids: Any, tokenizer: Any, counted: Any = None) -> dict[str, Any]:
    """Run the model over ids, (T + 1,) or a batch of which the first row is taken, in evaluation mode, off the tape.

    `counted`, of the same shape: the tokens whose losses are shown; all of them without it.
    """
    if not isinstance(model, LanguageModel):
        raise ConfigError(f"report: model is a {type(model).__name__}: pass a LanguageModel, or none")
    checked = check_ids(ids, model.config.vocab_size, "report")
    row = checked[0] if checked.ndim == 2 and len(checked) else checked
    if row.ndim != 1 or len(row) < 2:
        raise DataError(f"report: ids have shape {checked.shape}: they must be (T,) or (B, T), two tokens or more")
    in_loss = np.ones(len(row), bool) if counted is None else np.asarray(counted, bool).reshape(-1, len(row))[0]
    # A fresh context: nobody's breakpoints, and fused ops, of which the weights of attention are known.
    return Context().run(_read, model, row, tokenizer, in_loss[1:])


def _read(model: Any, ids: np.ndarray, tokenizer: Any, in_loss: np.ndarray) -> dict[str, Any]:
    with evaluating(model), no_grad():
        inputs, targets = ids[None, :-1], ids[None, 1:]  # (1, T)
        losses = cross_entropy(model(inputs), targets=targets, reduction="none").data[0]  # (T,)
        maps = len(model.trf_blocks) * getattr(model.config, "n_heads", 1)
        looked_at = max(1, min(inputs.shape[1], _LOOKED_AT, math.isqrt(_CELLS // maps)))
        outputs: list[np.ndarray] = []
        hooks = [block.on_forward(lambda _, __, out: outputs.append(out.data)) for block in model.trf_blocks]
        try:  # later tokens change nothing of what earlier ones see
            _, cache = model.run_with_cache(inputs[:, :looked_at], names="*.att.weights")
        finally:
            for hook in hooks:
                hook.remove()
        lens = [softmax(model.head(out), axis=-1).data[0] for out in outputs]  # (T, V) each
    used = {int(i) for i in ids[: _TOKENS + 1]}
    rows = []
    for probabilities in lens:
        k = min(_CANDIDATES, probabilities.shape[1])
        best = np.argpartition(-probabilities, k - 1, axis=-1)[:, :k]  # (T, k)
        order = np.argsort(-np.take_along_axis(probabilities, best, -1), axis=-1, kind="stable")
        best = np.take_along_axis(best, order, -1)
        used |= set(best.ravel().tolist())
        rows.append([[[int(v), number(p[v])] for v in row] for row, p in zip(best, probabilities, strict=True)])
    notes = []
    if not in_loss.all():
        notes.append(f"{in_loss.sum():,} of {len(in_loss):,} tokens are in the loss, the others have no colour.")
    if len(ids) > _TOKENS + 1:
        notes.append(f"The text has {len(ids):,} tokens; the losses of the first {_TOKENS:,} are shown.")
    if looked_at < inputs.shape[1]:
        notes.append(
            f"Attention and the logit lens are of the first {looked_at} of {inputs.shape[1]:,} tokens, "
            "which do not see the others."
        )
    return {
        "ids": ids[: _TOKENS + 1].tolist(),
        "losses": [
            number(loss) if counts else None for loss, counts in zip(losses[:_TOKENS], in_loss[:_TOKENS], strict=True)
        ],
        "mean": number(losses[in_loss].mean(dtype=np.float64)),
        "tokens": {str(i): _token(tokenizer, i) for i in sorted(used)},
        "attention": [
            {"layer": name.removesuffix(".att.weights"), "heads": [codes(head) for head in weights[0]]}
            for name, weights in cache.items()
        ],
        "looked_at": looked_at,
        "lens": rows,
        "notes": notes,
    }


def _token(tokenizer: Any, i: int) -> str:
    """A token in letters that print; its number where there is no tokenizer."""
    return visible(tokenizer.decode_bytes([i]))[:40] if tokenizer is not None else str(i)
