"""python examples/05_load_gpt2.py FOLDER [--quick]        half a minute with GPT-2's small size; seconds with --quick

Chapter 5 ends with a gift: weights that others paid for, in the architecture one has just written. FOLDER is one of

- a clone of https://huggingface.co/openai-community/gpt2 (config.json, model.safetensors, vocab.json, merges.txt: 550 MB), or of
  gpt2-medium, gpt2-large, gpt2-xl beside it; these files are enough:
      for f in config.json model.safetensors vocab.json merges.txt; do
          curl -L --create-dirs -o gpt2/$f https://huggingface.co/openai-community/gpt2/resolve/main/$f; done
- what the book's gpt_download.py leaves in gpt2/124M: OpenAI's own TensorFlow checkpoint (hparams.json, model.ckpt.*).

A PyTorch state dict, such as the book's model.pth, is first made into such a folder: tinygrad-llm convert model.pth FOLDER.

With --quick, a tiny GPT that knows nothing takes the place of GPT-2: it is written as such a folder, read again and compared.
"""

import sys
import tempfile

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm.generation import stream_text
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.text import BPETokenizer
from tinygrad_llm.weights import load_pretrained, save_pretrained

PROMPT = "Every effort moves you"
folders = [word for word in sys.argv[1:] if not word.startswith("-")]
quick = "--quick" in sys.argv
if not folders and not quick:
    sys.exit(__doc__)

if quick:
    folders = [tempfile.mkdtemp() + "/tiny"]
    tokenizer = BPETokenizer.train(tg.text.story(), 300)
    ours = GPTModel(GPTConfig(tokenizer.vocab_size, 32, 32, 2, 2), rng=tg.rng.Generator(123)).eval()
    save_pretrained(ours, folders[0], tokenizer)  # a folder that transformers opens too

model, tokenizer, report = load_pretrained(folders[0], report=True)
print(report)
if tokenizer is None:
    sys.exit(f"{folders[0]} has no tokenizer: put vocab.json and merges.txt there")
if quick:
    ids = np.array([tokenizer.encode(PROMPT)])
    same = np.array_equal(model(ids).data, ours(ids).data)
    print(f"The logits of what was written and of what was read are the same to the bit: {same}")
    assert same

# The book's first try: always the likeliest token. Then its remedies: a temperature of 1.5 among the 50 likeliest.
for temperature, top_k in ((0.0, None), (1.0, 25), (1.5, 50)):
    rng = tg.rng.Generator(123)
    print(f"\ntemperature {temperature}, top_k {top_k}: {PROMPT}", end="")
    for piece in stream_text(model, tokenizer, PROMPT, 25, temperature, top_k, rng=rng):
        print(piece, end="", flush=True)
    print()
