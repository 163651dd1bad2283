"""torch.nn.TransformerEncoderLayer under the names of nn.EncoderBlock: queries, keys and values are Linears of their own here."""

import torch
from torch import nn
from torch.func import functional_call


class EncoderLayer(nn.Module):
    def __init__(self, emb_dim, n_heads, hidden_dim, **options):
        super().__init__()
        self.att, self.ff = nn.Module(), nn.Module()
        for name in ("W_query", "W_key", "W_value", "out_proj"):
            setattr(self.att, name, nn.Linear(emb_dim, emb_dim))
        self.ff.layers = nn.ModuleList([nn.Linear(emb_dim, hidden_dim), nn.Identity(), nn.Linear(hidden_dim, emb_dim)])
        self.norm1, self.norm2 = nn.LayerNorm(emb_dim), nn.LayerNorm(emb_dim)
        sizes = {"d_model": emb_dim, "nhead": n_heads, "dim_feedforward": hidden_dim, "dropout": 0.0}
        self.theirs = [
            nn.TransformerEncoderLayer(**sizes, batch_first=True, **options)
        ]  # in a list: it holds no parameter

    def forward(self, x, mask=None):
        """x (B, T, C); mask (B, T), True where there is a token. PyTorch's is the other way round."""
        att = self.att.W_query, self.att.W_key, self.att.W_value
        modules = {"self_attn.out_proj": self.att.out_proj, "linear1": self.ff.layers[0], "linear2": self.ff.layers[2]}
        modules |= {"norm1": self.norm1, "norm2": self.norm2}
        values = {
            f"self_attn.in_proj_{kind}": torch.cat([getattr(w, kind) for w in att]) for kind in ("weight", "bias")
        }
        values |= {f"{name}.{kind}": p for name, module in modules.items() for kind, p in module.named_parameters()}
        hidden = {} if mask is None else {"src_key_padding_mask": torch.tensor(~mask)}
        return functional_call(self.theirs[0], values, (x,), hidden, strict=True)
