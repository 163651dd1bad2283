"""The Vision Transformer (Dosovitskiy et al. 2020 §3.1): a picture is a text of patches. It reads from top to bottom.

What differs from GPT-2: a patch of pixels, not an id, becomes a vector, by one linear layer; every patch sees all others; a first
token that stands for none of them, or the mean of all, is what the class is told by.

    logits = model(images)                                     # (B, n_channels, H, W) floats -> (B, K)
    x = model.features(images)                                 # (B, T, C), after the last norm; T with the class token

Letters in shape comments: B batch, D channels, H, W height and width in pixels, P patch_size, N patches, T tokens, C = emb_dim, K
classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np

from .. import ops
from ..checks import check_flag, check_integer, check_number
from ..engine import Tensor
from ..errors import ConfigError, DataError
from ..nn import Dropout, EncoderBlock, LayerNorm, Linear, Parameter, Sequential
from ..nn.initial import truncated_normal
from ..nn.layers import ACTIVATIONS
from ..rng import Generator, Zeros, get_generator
from .base import Config, Model
from .costs import Cost, encoder_costs, repeated

ORDERS = ("channels_first", "channels_last")
POOLS = ("token", "mean")


@dataclass(frozen=True)
class ViTConfig(Config):
    """The sizes of ViT-B/16 for a thousand classes and a few options, checked when they are put together.

    `image_size`: pixels of a side, of which `patch_size` must be a divisor. `patch_order`: how the numbers of a patch lie in a
    row of the projection: "channels_first" (D, P, P), as weights of PyTorch's convolution, or "channels_last" (P, P, D), as those
    of Google's. `pool`: the class is told by the first "token", or by the "mean" of all patches, and then there is no such token.
    `activation`: "gelu_erf" in PyTorch's models, "gelu" in Google's. `init`: "vit" draws positions from N(0, 0.02), the class
    token and the head as zeros, other matrices from N(0, 0.02) without what is more than two deviations away; "pytorch" each
    layer as PyTorch does.
    """

    architecture: ClassVar[str] = "vit"

    n_classes: int = 1000
    image_size: int = 224
    patch_size: int = 16
    n_channels: int = 3
    emb_dim: int = 768
    n_heads: int = 12
    n_layers: int = 12
    hidden_dim: int | None = None  # None: 4 emb_dim
    drop_rate: float = 0.0
    activation: str = "gelu_erf"
    norm_eps: float = 1e-6
    pool: str = "token"
    patch_order: str = "channels_first"
    qkv_bias: bool = True
    init: str = "vit"

    def __post_init__(self) -> None:
        sizes = ("n_classes", "image_size", "patch_size", "n_channels", "emb_dim", "n_heads", "n_layers")
        for name in (*sizes, "hidden_dim"):
            if name in sizes or getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(f"ViTConfig: {name}", getattr(self, name)))
        if self.image_size % self.patch_size:
            raise ConfigError(f"ViTConfig: patch_size {self.patch_size} does not divide image_size {self.image_size}")
        if self.emb_dim % self.n_heads:
            raise ConfigError(f"ViTConfig: n_heads {self.n_heads} does not divide emb_dim {self.emb_dim}")
        check_flag("ViTConfig: qkv_bias", self.qkv_bias)
        choices = {
            "activation": tuple(ACTIVATIONS),
            "pool": POOLS,
            "patch_order": ORDERS,
            "init": ("vit", "pytorch"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"ViTConfig: {name} is {getattr(self, name)!r}: use one of {', '.join(known)}")
        object.__setattr__(self, "drop_rate", check_number("ViTConfig: drop_rate", self.drop_rate, most=1))
        object.__setattr__(self, "norm_eps", check_number("ViTConfig: norm_eps", self.norm_eps, below=1))

    @property
    def n_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def context_length(self) -> int:  # type: ignore[override]
        """Tokens of a picture."""
        return self.n_patches + (self.pool == "token")

    @property
    def patch_width(self) -> int:
        """The numbers of a patch."""
        return self.n_channels * self.patch_size**2

    @property
    def hidden_width(self) -> int:
        return self.hidden_dim or 4 * self.emb_dim

    def costs(self) -> list[Cost]:
        c, t = self.emb_dim, self.context_length
        block = [
            cost._replace(cached=0)  # all of a picture is read at once
            for cost in encoder_costs(c, self.n_heads, self.hidden_width, t, qkv_bias=self.qkv_bias)
        ]
        return [
            Cost("patch_emb", c * (self.patch_width + 1), kept=self.patch_width),
            *([Cost("class_token", c, flops=0)] if self.pool == "token" else []),
            Cost("pos_emb", t * c, flops=0),
            *repeated("trf_blocks", self.n_layers, block),
            Cost("final_norm", 2 * c, kept=c + 1),
            Cost("out_head", self.n_classes * (c + 1), flops=0),  # once for a picture
        ]


def _vit(patch_size: int, emb_dim: int, n_heads: int, n_layers: int) -> ViTConfig:
    return ViTConfig(patch_size=patch_size, emb_dim=emb_dim, n_heads=n_heads, n_layers=n_layers)


# Dosovitskiy et al. 2020, table 1; Ti and S are of Touvron et al. 2021, table 1.
PRESETS: dict[str, ViTConfig] = {
    "digits": ViTConfig(
        n_classes=10, image_size=8, patch_size=2, n_channels=1, emb_dim=48, n_heads=4, n_layers=3, drop_rate=0.0
    ),
    "vit-Ti/16": _vit(16, 192, 3, 12),
    "vit-S/16": _vit(16, 384, 6, 12),
    "vit-B/16": ViTConfig(),
    "vit-B/32": _vit(32, 768, 12, 12),
    "vit-L/16": _vit(16, 1024, 16, 24),
    "vit-H/14": _vit(14, 1280, 16, 32),
}


class ViTModel(Model):
    """Images (B, D, H, W) -> logits (B, K): the scores of the classes."""

    architecture = "vit"
    config_class = ViTConfig

    def __init__(self, config: ViTConfig, *, rng: Generator | None = None) -> None:
        self.check_config(config)
        rng = rng or get_generator()
        draw = rng if config.init == "pytorch" else Zeros()
        c = config.emb_dim
        self.config = config
        self.classes: tuple[str, ...] | None = None  # their names, if they are known
        self.patch_emb = Linear(config.patch_width, c, rng=draw)
        self.class_token = Parameter(np.zeros((1, c), np.float32)) if config.pool == "token" else None
        self.pos_emb = Parameter(rng.normal(0.0, 0.02, (config.context_length, c)))
        self.drop_emb = Dropout(config.drop_rate)
        self.trf_blocks = Sequential(
            *(
                EncoderBlock(
                    c,
                    config.n_heads,
                    config.context_length,
                    config.drop_rate,
                    hidden_dim=config.hidden_dim,
                    activation=config.activation,
                    norm_eps=config.norm_eps,
                    norm_first=True,
                    qkv_bias=config.qkv_bias,
                    rng=draw,
                )
                for _ in range(config.n_layers)
            )
        )
        self.final_norm = LayerNorm(c, config.norm_eps)
        self.out_head = Linear(c, config.n_classes, rng=draw)
        if config.init == "vit":
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2 and name.startswith(("patch_emb", "trf_blocks")):
                    parameter.data = truncated_normal(rng, parameter.shape)
        self.name_parameters()

    def forward(self, images: Any) -> Tensor:
        x = self.features(images)  # (B, T, C)
        return self.out_head(x[:, 0] if self.class_token is not None else x.mean(axis=1))  # (B, K)

    def features(self, images: Any) -> Tensor:
        """(B, D, H, W) -> (B, T, C), after the last norm; the class token, if there is one, comes first."""
        x = self.patch_emb(
            patches(self._check_images(images), self.config.patch_size, self.config.patch_order)
        )  # (B, N, C)
        if self.class_token is not None:
            first = ops.broadcast_to(self.class_token, shape=(x.shape[0], 1, x.shape[2]))  # (B, 1, C)
            x = ops.concatenate(first, x, axis=1)  # (B, T, C)
        x = self.drop_emb(x + self.pos_emb)
        for block in self.trf_blocks:
            x = block(x)  # (B, T, C)
        return self.final_norm(x)

    def resize_positions(self, image_size: int) -> None:
        """Read pictures of another size from now on: positions are interpolated on their square, the class token's stays (§3.2).

        By the cubic of PyTorch's bicubic interpolation (a = -0.75, borders repeated, no corners aligned), as public code does.
        ConfigError for a size that patch_size does not divide, or that no laptop holds.
        """
        config = replace(self.config, image_size=image_size)
        config.check_bytes()  # before anything is allocated
        old, new = (c.image_size // c.patch_size for c in (self.config, config))
        table = self.pos_emb.data
        first, square = table[: len(table) - old * old], table[len(table) - old * old :].reshape(old, old, -1)
        weights = cubic_weights(old, new).astype(table.dtype)  # (new, old)
        square = np.einsum("yh,xw,hwc->yxc", weights, weights, square, optimize=True)  # (new, new, C)
        self.pos_emb.data, self.pos_emb.grad = np.concatenate([first, square.reshape(new * new, -1)]), None
        for block in cast(Iterable[EncoderBlock], self.trf_blocks):
            block.att.context_length = config.context_length
        self.config = config

    def _check_images(self, images: Any) -> np.ndarray:
        """As floats of the weights' dtype. DataError for another form, size or number of channels, or what is not finite."""
        config = self.config
        wanted = config.n_channels, config.image_size, config.image_size
        try:
            images = np.asarray(images)
        except ValueError:
            raise DataError("ViTModel: the images are a ragged list: give all of them the same size") from None
        if images.dtype.kind not in "fiu" or images.ndim != 4 or images.shape[1:] != wanted or len(images) == 0:
            raise DataError(
                f"ViTModel: images are {images.dtype} {images.shape}: they must be numbers of the shape (batch, "
                f"{', '.join(map(str, wanted))}): channels, height, width"
            )
        if not (finite := np.isfinite(images).all((1, 2, 3))).all():
            raise DataError(f"ViTModel: image {int(finite.argmin())} of {len(images)} holds NaN or infinite numbers")
        return images.astype(self.patch_emb.weight.dtype, copy=False)


def patches(images: np.ndarray, patch_size: int, order: str = "channels_first") -> np.ndarray:
    """(B, D, H, W) -> (B, N, D P P): the patches row by row, of each its channels one after the other, or pixel by pixel."""
    b, d, h, w = images.shape
    p = patch_size
    cut = images.reshape(b, d, h // p, p, w // p, p)  # (B, D, rows, P, columns, P)
    axes = (0, 2, 4, 1, 3, 5) if order == "channels_first" else (0, 2, 4, 3, 5, 1)
    return np.ascontiguousarray(cut.transpose(axes)).reshape(b, -1, d * p * p)


def cubic_weights(old: int, new: int) -> np.ndarray:
    """(new, old): what each of `old` points in a row counts at each of `new` ones (Keys 1981, a = -0.75; borders repeated)."""
    a = -0.75
    at = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for i in range(-1, 3):
        point = np.floor(at).astype(int) + i
        x = np.abs(at - point)
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a
        weights[np.arange(new), point.clip(0, old - 1)] += np.where(x <= 1, near, far)  # one point in each row
    return weights
