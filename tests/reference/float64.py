"""Models of transformers in float64 all through: by themselves they take norms, angles and recurrences in float32."""

import types

import numpy as np
import torch


def in_float64(model):
    """The model, changed in place, in evaluation mode. Its attention must be sdpa's, which keeps the dtype."""
    model.double().eval()
    for module in model.modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm"):
            module.forward = types.MethodType(_norm, module)
        elif kind.endswith("RotaryEmbedding"):
            module.forward = types.MethodType(_cos_sin, module)
        elif kind.endswith("SinusoidalPositionalEmbedding"):
            module.weight.data = _sines_and_cosines(*module.weight.shape)
        elif kind == "RwkvSelfAttention":
            module.forward = types.MethodType(_time_mix, module)
    return model


def _sines_and_cosines(n, dim):
    """Sines, then cosines, as MarianSinusoidalPositionalEmbedding says that it makes them, but not by way of float32."""
    angles = np.arange(n)[:, None] / 10000.0 ** (2 * (np.arange(dim) // 2) / dim)
    return torch.tensor(np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1))


def _norm(self, x):
    return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)


def _cos_sin(self, x, position_ids):
    config = self.config
    theta = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    angles = position_ids[..., None] * theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def _time_mix(self, hidden, state=None, use_cache=False):
    """Theirs goes from token to token in float32; here are the sums that it stands for, of whole texts alone."""
    if state is not None or use_cache:
        raise TypeError("call the model with use_cache=False")
    receptance, key, value, _ = self.extract_key_value(hidden)
    at = torch.arange(hidden.shape[1])
    age = (at[:, None] - 1 - at)[..., None]  # (T, S, 1)
    exponents = key[:, None] - age.clamp(min=0) * self.time_decay.exp()  # (B, T, S, A)
    exponents = torch.where(age == -1, key[:, None] + self.time_first, exponents)
    shares = exponents.masked_fill(age < -1, -torch.inf).softmax(2)
    return self.output(receptance * torch.einsum("btsa,bsa->bta", shares, value)), None
