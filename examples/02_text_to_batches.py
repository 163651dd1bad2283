"""python examples/02_text_to_batches.py [STORY.txt] [--quick]        a few seconds

Needs the extra gpt2: .venv/bin/pip install -e '.[gpt2]'

Chapter 2: a model reads numbers. This page turns a story into them, step by step: words, word ids, byte-pair tokens,
windows of inputs and targets, batches, and at last vectors.

The book's figures belong to its own short story, Edith Wharton's "The Verdict" (public domain). Give the path of that text
and they stand beside ours; without it the page works on the story that comes with this package, and its counts differ.

What to watch:
- a vocabulary of words has no answer to a new word; bytes and their merges have one to any text;
- the targets are the inputs, one token later: that is all a language model is ever asked for;
- with the same seed, the first random vectors are the book's, digit for digit.
"""

import hashlib
import sys

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm.text import (
    BPETokenizer,
    DataLoader,
    GPT2Tokenizer,
    SlidingWindowDataset,
    read_text,
    story,
    train_val_split,
)
from tinygrad_llm.text.view import show_tokens, wants_color
from tinygrad_llm.text.word import SimpleTokenizerV1, SimpleTokenizerV2, split_words

try:
    gpt2 = GPT2Tokenizer()
except tg.errors.TokenizerError as error:
    sys.exit(str(error))
quick = "--quick" in sys.argv
paths = [word for word in sys.argv[1:] if not word.startswith("-")]
text = read_text(paths[0]) if paths else story()
the_books = hashlib.sha256(text.encode()).hexdigest().startswith("b41e41a68f0398a3")
color = wants_color(sys.stdout)


def beside(what, book, ours, same_text=True):
    """One line: a figure of the book, and what came out here."""
    print(f"  {what}\n    book {book if same_text else f'{book} (its own story)'}\n    ours {ours}")


print(f"1. The text: {paths[0] if paths else 'the story of this package'}")
beside("characters", "20,479", f"{len(text):,}", the_books)

print("\n2. Words, cut at white space and punctuation (2.2, 2.3)")
words = split_words(text)
v1 = SimpleTokenizerV1.train(text)
beside("tokens", "4,690", f"{len(words):,}", the_books)
beside("vocabulary: the different ones, sorted", "1,130", f"{v1.vocab_size:,}", the_books)
sentence = '"It\'s the last he painted, you know," Mrs. Gisburn said with pardonable pride.'
if the_books:
    book = [1, 56, 2, 850, 988, 602, 533, 746, 5, 1126, 596, 5, 1, 67, 7, 38, 851, 1108, 754, 793, 7]
    beside(sentence, book, v1.encode(sentence))
else:
    print(f"  our first sentence: {v1.encode(text[: text.index('.') + 1])}")

print("\n3. A word that is not in the vocabulary (2.4)")
greeting = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace."
try:
    v1.encode(greeting)
except tg.errors.TokenizerError as error:
    print(f"  V1: {error}")
v2 = SimpleTokenizerV2.train(text)
book = [1131, 5, 355, 1126, 628, 975, 10, 1130, 55, 988, 956, 984, 722, 988, 1131, 7]
beside("V2 has two more words", book, v2.encode(greeting), the_books)
print(f"  and back: {v2.decode(v2.encode(greeting))}")

print("\n4. Byte-pair encoding: no word is unknown (2.5)")
greeting = "Hello, do you like tea? <|endoftext|> In the sunlit terracesof someunknownPlace."
ids = gpt2.encode(greeting, allowed_special={"<|endoftext|>"})
book = [15496, 11, 466, 345, 588, 8887, 30, 220, 50256, 554, 262, 4252, 18250, 8812, 2114, 1659, 617, 34680, 27271, 13]
beside("GPT-2's ids", book, ids)
print(show_tokens([gpt2.tokens[i] for i in ids], ids, 100, color))
ids = gpt2.encode("Akwirw ier")
beside("Akwirw ier", [33901, 86, 343, 86, 220, 959], ids)
print(show_tokens([gpt2.tokens[i] for i in ids], ids, 100, color))

print("\n  The same method, learned from this story only, with 512 tokens; the first merges are its commonest pairs:")
bpe = BPETokenizer.train(text, 512)
print("   ", [bpe.tokens[256 + k].decode("utf-8", "replace") for k in range(12)])
ids = bpe.encode(text[:60])
print(show_tokens([bpe.tokens[i] for i in ids], ids, 100, color))

print("\n5. Windows: each input's target is the token that follows (2.6)")
ids = gpt2.encode(text)
beside("GPT-2 tokens", "5,145", f"{len(ids):,}", the_books)
train_text, val_text = train_val_split(text, 0.9)
train_ids, val_ids = gpt2.encode(train_text), gpt2.encode(val_text)
beside("first 90 % / last 10 % of the characters", "4,612 / 534", f"{len(train_ids):,} / {len(val_ids):,}", the_books)
for length, stride, book in [(256, 256, "18 / 2"), (256, 128, "35 / 3"), (4, 4, "1,152 / 133"), (4, 1, "4,608 / 530")]:
    n = [len(SlidingWindowDataset(part, length, stride)) for part in (train_ids, val_ids)]
    beside(f"windows of {length} tokens, one every {stride}", book, f"{n[0]:,} / {n[1]:,}", the_books)
inputs, targets = SlidingWindowDataset(ids, context_length=4, stride=1)[0]
beside("the first window of 4", "[40, 367, 2885, 1464]", inputs.tolist(), the_books)
beside("and its targets", "[367, 2885, 1464, 1807]", targets.tolist(), the_books)
for t in range(4):
    print(f"    after {gpt2.decode(inputs[: t + 1])!r} comes {gpt2.decode(targets[t : t + 1])!r}")

print("\n6. Batches (2.6): eight windows at a time")
loader = DataLoader(SlidingWindowDataset(ids, context_length=4, stride=4), batch_size=8, shuffle=False)
inputs, targets = next(iter(loader))  # (B, T), (B, T)
print(f"  inputs {inputs.shape}, targets {targets.shape}, {len(loader)} batches; the first inputs:\n{inputs}")

print("\n7. Vectors: one row of a table for each id (2.7)")
tg.manual_seed(123)
table = tg.nn.Embedding(6, 3)
beside(
    "row 3 of Embedding(6, 3), seed 123",
    [-0.4015, 0.9666, -1.1481],
    [round(number, 4) for number in table(3).data.tolist()],
)
print(f"  ids [2, 3, 5, 1] -> their rows\n{np.round(table([2, 3, 5, 1]).data, 4)}")

print("\n8. ... and one for each position (2.8): without it a model could not tell one order of words from another")
width = 16 if quick else 256
tok_emb, pos_emb = tg.nn.Embedding(gpt2.vocab_size, width), tg.nn.Embedding(4, width)
x = tok_emb(inputs) + pos_emb(np.arange(4))  # (B, T, C) + (T, C) -> (B, T, C)
print(f"  {inputs.shape} ids -> {x.shape} numbers: this is what the next chapter's attention receives")
