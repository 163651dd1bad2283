"""Everything that can be chosen about a tuning run, with its help text: the one source of the flags."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..checks import check_options
from ..errors import ConfigError
from ..models import TextModel, make_config
from ..models.estimate import TrainingMemory
from ..models.heads import POSITIONS
from ..nn.lora import LoRAConfig
from ..parallel import default_threads
from ..text.labelled import BALANCES
from ..text.lessons import LESSONS
from ..text.templates import TEMPLATES
from ..training.options import LoopOptions, common_defaults, option, with_changes
from ..training.step import shard_batch
from . import lora

Tuning = TypeVar("Tuning", bound="TuningOptions")
TRAINS = ("head", "last_block", "all", "lora")
SIZES = ("context_length", "emb_dim", "n_heads", "n_layers")


@dataclass(frozen=True, kw_only=True)
class TuningOptions(LoopOptions):
    """What all tuning runs have; checked when it is made: ConfigError names what cannot be."""

    lr_of_width: ClassVar[float] = (
        5e-5 * 768
    )  # the book's learning rate for GPT-2 124M; narrower models take a higher one
    fixed: ClassVar[tuple[str, ...]] = (
        "train",
        "lora",
        "examples",
        "max_length",
        "decay",
        "seed",
        *SIZES,
    )  # when resumed
    most_files: ClassVar[int] = 1  # that a run learns from
    fresh: ClassVar[dict[str, Any]]  # what is not given, with fresh weights
    learned: ClassVar[dict[str, Any]]  # and with weights that were learned before

    train: str = option(
        "what learns: the head alone, the last block with the final norm and the head, all, or what LoRA adds",
        choices=TRAINS,
    )
    lora: str = option("LoRA, as r=16,alpha=32,targets=attn,dropout=0.05; then train is lora", "")
    examples: int = option("learn from at most so many texts; 0: from all", 0, least=0)
    max_length: int = option(
        "tokens of a text that are read, from its beginning; 0: as many as the longest to learn from has", 0, least=0
    )
    context_length: int = option("of a model from fresh weights: tokens that it can read")
    emb_dim: int = option("of a model from fresh weights: its width")
    n_heads: int = option("of a model from fresh weights: attention heads in each layer", least=0)
    n_layers: int = option("of a model from fresh weights: transformer blocks")
    drop_rate: float = option("share of the activations dropped in training", 0.1, most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.lora) != (self.train == "lora"):
            raise ConfigError(
                f"train is {self.train!r} and lora is {self.lora!r}: they go together, as train=lora, lora=r=8,alpha=16"
            )
        if self.lora:
            self.lora_config()
        if self.max_length > self.context_length:
            raise ConfigError(
                f"max_length is {self.max_length}: the model reads {self.context_length} tokens (context_length)"
            )

    @classmethod
    def defaults(cls, learned: bool = False) -> dict[str, Any]:
        """What is not given, for weights that were `learned` before or for fresh ones."""
        return common_defaults(cls) | cls.fresh | (cls.learned if learned else {})

    @classmethod
    def of_run(cls: type[Tuning], training: dict[str, Any]) -> Tuning:
        """The options in a run's config.json; one that did not exist yet when the run began has its default."""
        check_options("training", training, cls)
        return cls(**cls.defaults() | training)

    @classmethod
    def choose(cls: type[Tuning], model: TextModel | None, **given: Any) -> Tuning:
        """Those given, and the defaults for this model or for fresh weights. ConfigError for what the model decides."""
        defaults = cls.defaults(model is not None)
        if given.get("lora") and "train" not in given:
            given["train"] = "lora"
        if model is not None:
            for name in SIZES:
                if name in given:
                    raise ConfigError(
                        f"{name} is {given[name]!r}: with init_from it is that of the weights: leave it out"
                    )
            sizes = {name: getattr(model.config, name, 0) for name in SIZES}
            sizes["context_length"] = model.config.reading_length
            defaults |= sizes | {"lr": cls.lr_of_width / model.config.emb_dim}
        return cls(**with_changes(defaults, given, cls))

    def model_config(self, model: TextModel | None, vocab_size: int) -> Any:
        """The configuration of a model that was learned, or of a fresh one for a vocabulary."""
        if model is not None:
            return model.config
        sizes = {name: getattr(self, name) for name in (*SIZES, "drop_rate")}
        config = make_config("gpt", {"vocab_size": vocab_size, "init": "gpt2", **sizes})
        config.check_bytes()
        return config

    def lora_config(self) -> LoRAConfig:
        """What LoRA adds, and what is trained whole beside it."""
        return lora.parse(self.lora)

    def memory(self, config: Any, width: int, text_bytes: int) -> TrainingMemory:
        """What training on rows of up to `width` tokens takes: of a batch, as many shards are under way as there are threads."""
        rows = np.broadcast_to(np.int8(0), (self.batch_size, width))
        under_way = shard_batch(rows, self.accumulate)[: default_threads()]
        at_once = sum(shard.stop - shard.start for shard in under_way)
        return TrainingMemory(replace(config, context_length=width), self.batch_size, at_once, text_bytes)


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(TuningOptions):
    """The options of `classify`, complete and checked; ConfigError for bad values."""

    task: ClassVar[str] = "classify"
    fixed: ClassVar[tuple[str, ...]] = (  # what decides the model, the texts and their parts
        *TuningOptions.fixed,
        *("position", "head_bias", "causal", "balance", "keep_duplicates", "text", "label", "delimiter", "encoding"),
    )
    # Fresh weights: small, on words. Weights that were learned: as the book.
    fresh: ClassVar[dict[str, Any]] = {
        **{"context_length": 256, "emb_dim": 64, "n_heads": 4, "n_layers": 2},
        **{"train": "all", "epochs": 8, "batch_size": 16, "lr": 1e-3, "spike": 0.0},
    }
    learned: ClassVar[dict[str, Any]] = {"train": "last_block", "epochs": 5, "batch_size": 8, "lr": 5e-5}

    position: str = option(
        "token whose features tell the class: the text's last, the last of a row filled up to max_length (as the book's code has "
        "it), the first, or the mean of the scores of all; of a bert what its pooler makes of [CLS] (pooled)",
        "last",
        choices=POSITIONS,
    )
    head_bias: bool = option("the head adds a number for each class, which classifiers of transformers do not", True)
    causal: bool = option(
        "a token sees those before it; without, all of its row, for which position must be padded", True
    )
    balance: str = option(
        "of each class as many texts as the smallest has, or all texts, the rarer ones with larger weights, or as they are",
        "undersample",
        choices=BALANCES,
    )
    keep_duplicates: bool = option("texts that occur again, to the byte, stay", False)
    text: str = option(
        "column of the texts: its name, or its number from 1; without it, usual names are looked for", ""
    )
    label: str = option("column of the classes, likewise", "")
    delimiter: str = option("between columns; without it, found", "")
    encoding: str = option("of the file; without it, found: utf-8, utf-16 or cp1252", "")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.position == "pooled" and 0 < self.max_length < 3:
            raise ConfigError(f"max_length is {self.max_length}: a text stands between [CLS] and [SEP]: use 3 or more")

    @classmethod
    def choose(cls, model: TextModel | None, **given: Any) -> ClassifyOptions:
        own = {} if model is None else {"position": model.positions[0]}
        return super().choose(model, **own | given)

    def lora_config(self) -> LoRAConfig:
        return _with_head(super().lora_config())


@dataclass(frozen=True, kw_only=True)
class InstructOptions(TuningOptions):
    """The options of `instruct`, complete and checked; ConfigError for bad values."""

    task: ClassVar[str] = "instruct"
    fixed: ClassVar[tuple[str, ...]] = (*TuningOptions.fixed, "template", "kinds", "encoding")
    # Fresh weights: of a size that learns to copy letters in minutes. Weights that were learned: as the book.
    fresh: ClassVar[dict[str, Any]] = {
        **{"context_length": 128, "emb_dim": 64, "n_heads": 4, "n_layers": 2, "drop_rate": 0.0},
        **{"train": "all", "epochs": 12, "batch_size": 32, "lr": 3e-3, "spike": 0.0, "mask_instruction": True},
    }
    learned: ClassVar[dict[str, Any]] = {
        **{"train": "all", "epochs": 2, "batch_size": 8, "lr": 5e-5, "drop_rate": 0.1, "mask_instruction": False}
    }

    template: str = option("how questions and answers are written down", "plain", choices=tuple(TEMPLATES))
    kinds: str = option(
        "of the lessons that come with the package: " + ", ".join(LESSONS), "upper,spell,last,reverse,passive"
    )
    mask_instruction: bool = option("only the answers are in the loss, not what is asked")
    bucket: int = option("of so many batches in a row, texts of like length go together; 1: as they come", 8)
    encoding: str = option("of the file; without it, found: utf-8, utf-16 or cp1252", "")


@dataclass(frozen=True, kw_only=True)
class FeedbackOptions(TuningOptions):
    """What all ways to learn from feedback have: they go on from weights that answer already, in the template of these."""

    hidden: ClassVar[tuple[str, ...]] = (
        *SIZES,
        "drop_rate",
    )  # sizes are those of the weights; and nothing is dropped, or
    # the model that draws, the reference and the model that learns would never be the same one
    fixed: ClassVar[tuple[str, ...]] = (*TuningOptions.fixed, "template", "encoding", "reference")
    fresh: ClassVar[dict[str, Any]] = {
        "train": "all",
        "batch_size": 32,
        "drop_rate": 0.0,
        "spike": 0.0,
        "weight_decay": 0.0,
    }
    learned: ClassVar[dict[str, Any]] = {}

    template: str = option(
        "how questions and answers are written down; '': as the weights were taught by instruct, or plain",
        "",
        choices=("", *TEMPLATES),
    )
    reference: str = option("the run or weights beside which the model is seen; '': those that it begins from", "")
    encoding: str = option("of the file; without it, found: utf-8, utf-16 or cp1252", "")


@dataclass(frozen=True, kw_only=True)
class RewardOptions(FeedbackOptions):
    """The options of `prefer reward`, complete and checked; ConfigError for bad values."""

    task: ClassVar[str] = "reward"
    learned: ClassVar[dict[str, Any]] = {"epochs": 3}

    center: float = option("weight of (better + worse)², which keeps scores near 0 (TRL's examples: 0.01)", 0.0)
    normalize: bool = option(
        "in the end, scale scores to mean 0 and spread 1 on what the weights it began from answer", True
    )

    def lora_config(self) -> LoRAConfig:
        return _with_head(super().lora_config())


@dataclass(frozen=True, kw_only=True)
class DPOOptions(FeedbackOptions):
    """The options of `prefer dpo`, complete and checked; ConfigError for bad values."""

    task: ClassVar[str] = "dpo"
    lr_of_width: ClassVar[float] = (
        1e-6 * 768
    )  # 8e-6 at a width of 96: more, and answers fall apart while the loss falls
    fixed: ClassVar[tuple[str, ...]] = (*FeedbackOptions.fixed, "judge", "temperature", "max_new_tokens")
    enders: ClassVar[tuple[str, ...]] = (*FeedbackOptions.enders, "least_chosen")
    learned: ClassVar[dict[str, Any]] = {"epochs": 1}

    beta: float = option("how much a nat of log-ratio is worth: the larger, the nearer to the reference", 0.1)
    kind: str = option("of loss", "sigmoid", choices=("sigmoid", "ipo", "hinge", "robust"))
    label_smoothing: float = option("share of pairs that are taken to be the wrong way round", 0.0, below=1)
    alpha: float = option("weight of the loss of the better answer as text (RPO), which keeps it likely", 0.0)
    average: bool = option("means over tokens in place of sums, as the book has it and ipo wants it", False)
    judge: str = option(
        "what drawn answers to held-out prompts are judged by in every evaluation, and then the validation loss is that with the "
        "sign changed: a run of `prefer reward`, reviews, or MODULE:FUNCTION",
        "",
    )
    eval_answers: int = option("answers that are judged in each evaluation", 64)
    max_new_tokens: int = option("tokens of a drawn answer at most", 48)
    temperature: float = option("of the answers that are drawn", 1.0)
    least_chosen: float = option(
        "end the run where the log-ratio of better answers has fallen below minus so many nats in the mean; 0: never",
        0.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta == 0:
            raise ConfigError("beta is 0: nothing would be learned: use one above 0, such as 0.1")


@dataclass(frozen=True, kw_only=True)
class OnlineOptions(FeedbackOptions):
    """What PPO and GRPO have: the model answers, is rewarded, and learns from its own answers."""

    fixed: ClassVar[tuple[str, ...]] = (
        *FeedbackOptions.fixed,
        "reward",
        "judge",
        "rollouts",
        "temperature",
        "max_new_tokens",
    )

    reward: str = option("what answers are rewarded by: a run of `prefer reward`, exact, reviews, or MODULE:FUNCTION")
    judge: str = option("what held-out answers are judged by besides, such as a true score, in the same words", "")
    rollouts: int = option("answers that are drawn before each round of learning, an epoch")
    max_new_tokens: int = option("tokens of an answer at most", 64)
    temperature: float = option("of the answers that are drawn; the logits are divided by it in the loss as well", 1.0)
    missing_end: float = option("taken off the score of an answer that does not come to its end", 1.0)
    clip: float = option("how far from 1 a ratio of probabilities may go before it no longer counts", 0.2)
    eval_answers: int = option(
        "held-out prompts that are answered in each evaluation, four times as many at both ends", 64
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature == 0:
            raise ConfigError("temperature is 0: at it one answer alone would be drawn to a prompt: use 1")


@dataclass(frozen=True, kw_only=True)
class PPOOptions(OnlineOptions):
    """The options of `prefer ppo`, complete and checked; ConfigError for bad values."""

    task: ClassVar[str] = "ppo"
    lr_of_width: ClassVar[float] = 0.024  # 2.5e-4 at a width of 96
    learned: ClassVar[dict[str, Any]] = {
        "epochs": 40,
        "rollouts": 64,
        "batch_size": 64,
        "eps": 1e-5,
        "schedule": "linear",
    }

    beta: float = option("what a nat of KL to the reference costs", 0.05)
    target_kl: float = option(
        "KL of an answer at which an adaptive beta aims (Ziegler et al. 2019); 0: beta stays", 0.0
    )
    horizon: float = option("answers over which an adaptive beta changes", 10_000.0)
    kl_estimator: str = option(
        "of the KL of a token: k1 is unbiased, k2 and k3 never negative", "k1", choices=("k1", "k2", "k3")
    )
    ppo_epochs: int = option("passes over the answers of a round", 4)
    gamma: float = option("what a reward is worth a token earlier", 1.0, most=1)
    lam: float = option("λ of the advantages (GAE): 0 trusts the value, 1 the return", 0.95, most=1)
    value_clip: float = option("how far a value may go from what it was in a round", 0.2)
    vf_coef: float = option("weight of the value's loss", 0.1)
    whiten_rewards: bool = option("divide rewards by their spread, as lm-human-preferences", False)
    unbiased: bool = option("variances with n - 1, as TRL and torchtune", False)
    ptx: str = option("conversations to go on learning from beside (PPO-ptx): a file, or lessons of a kind", "")
    ptx_coef: float = option("weight of the loss on these (InstructGPT: 27.8)", 1.0)


@dataclass(frozen=True, kw_only=True)
class GRPOOptions(OnlineOptions):
    """The options of `prefer grpo`, complete and checked; ConfigError for bad values."""

    task: ClassVar[str] = "grpo"
    lr_of_width: ClassVar[float] = 0.024
    learned: ClassVar[dict[str, Any]] = {
        "epochs": 160,
        "rollouts": 256,
        "batch_size": 256,
        "schedule": "constant",
        "warmup": 0.0,
    }

    group: int = option("answers to each prompt, which are compared with each other", 8, least=2)
    loss: str = option(
        "what a token weighs: grpo, bnpo, dapo or dr_grpo", "dapo", choices=("grpo", "bnpo", "dapo", "dr_grpo")
    )
    scale: bool = option("divide advantages by the spread of their group; without, Dr. GRPO and nanochat", True)
    beta: float = option("weight of the KL to the reference (k3) in the loss; 0: it is shown, and costs nothing", 0.0)
    iterations: int = option("passes over the answers of a round", 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollouts % self.group:
            raise ConfigError(f"rollouts is {self.rollouts} and group is {self.group}: it must be a multiple of that")


def _with_head(config: LoRAConfig) -> LoRAConfig:
    """With a head that is new, which is trained whole unless targets name it."""
    if "out_head" in config.targets:
        return config
    return replace(config, whole=tuple(dict.fromkeys((*config.whole, "out_head"))))
