"""Text to tokens to batches: tokenizers, datasets and the bundled story. Read bpe, then tokenizers, then datasets."""

from importlib import resources

from .bpe import apply_merges, get_stats, merge, train_bpe, train_bpe_plain
from .byte_level import BPETokenizer, GPT2Tokenizer
from .conversations import Conversations, count_answers, read_conversations
from .datasets import DataLoader, SlidingWindowDataset, read_text, train_val_split
from .duplicates import contradictions, exact_duplicates, near_duplicates
from .labelled import Labelled, read_labelled
from .pairs import Pair, Pairs, PairSplits, read_pairs, split_pairs
from .sentencepiece import Piece, SentencePieceTokenizer
from .templates import TEMPLATES, Template, check_messages
from .tokenizers import END_OF_TEXT, CharTokenizer, Tokenizer, load_tokenizer
from .vocabulary import BPEVocabulary, CharVocabulary
from .word import WordTokenizer
from .wordpiece import WordPieceTokenizer

__all__ = [
    "END_OF_TEXT",
    "TEMPLATES",
    "BPETokenizer",
    "BPEVocabulary",
    "CharTokenizer",
    "CharVocabulary",
    "Conversations",
    "DataLoader",
    "GPT2Tokenizer",
    "Labelled",
    "Pair",
    "PairSplits",
    "Pairs",
    "Piece",
    "SentencePieceTokenizer",
    "SlidingWindowDataset",
    "Template",
    "Tokenizer",
    "WordPieceTokenizer",
    "WordTokenizer",
    "apply_merges",
    "check_messages",
    "contradictions",
    "count_answers",
    "exact_duplicates",
    "get_stats",
    "load_tokenizer",
    "merge",
    "near_duplicates",
    "read_conversations",
    "read_labelled",
    "read_pairs",
    "read_text",
    "split_pairs",
    "story",
    "train_bpe",
    "train_bpe_plain",
    "train_val_split",
]


def story() -> str:
    """The short story that comes with the package, on which `tinygrad-llm pretrain` trains by default."""
    return resources.files(__package__).joinpath("story.txt").read_text(encoding="utf-8")
