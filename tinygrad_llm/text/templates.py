"""Chat templates: how a conversation is written down for a model, and which of its tokens are answers.

    messages = [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": "Four."}]
    template = TEMPLATES["chatml"]
    print(template.render(messages))                              # for people
    tokenizer = tokenizer.add_special(template.special_tokens)    # once, before training
    ids, is_answer = template.encode(tokenizer, messages)         # for a model: the loss counts where is_answer
    ids, _ = template.encode(tokenizer, messages[:1], generation_prompt=True)   # the model goes on from here
    template.end_id(tokenizer)                                    # ... until it writes this

A message is {"role": "system" | "user" | "assistant", "content": text}; "developer" is another word for "system". A user's
message may have an "input", as Alpaca's records do: a template that has no place of its own for it puts it below the content.
[{"role": "text", "content": text}], alone, is a text without roles: all of it is an answer.

What people write is encoded as letters, "<|im_end|>" in it too: only a template's own marks become special tokens. Text is cut
at marks and where an answer begins or a turn ends, and between cuts it is encoded as a whole: so no token crosses from what the
model reads into what it writes, and what a chat encodes is the beginning of what training encoded, token for token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Any, NamedTuple

from ..checks import check_flag, did_you_mean
from ..errors import ConfigError, DataError, TokenizerError
from .tokenizers import END_OF_TEXT, Tokenizer

Message = Mapping[str, str]

ROLES = ("system", "user", "assistant")
_SLOT = re.compile(r"(\{content\}|\{system\}|\{input\})")


class _Piece(NamedTuple):
    text: str  # which is encoded as one with what comes before it, if all else is the same
    is_mark: bool
    n_finished: int  # answers before it; what follows one is not encoded as one with what comes with the next question
    answer: int | None  # which answer it is part of, from 0


@dataclass(frozen=True)
class Template:
    """The words around messages. All fields are texts; `{content}`, `{system}` and `{input}` in them are slots.

    `special_tokens` are the marks: where one of them stands in a field, it becomes one id. `end` is the one that ends an answer,
    at which a model stops. The order is system, user, prompt, answer, end, after, user, ..., close. ConfigError naming the field
    for one that is no text, lacks its slot, or has one that it cannot have.
    """

    name: str
    user: str  # {content}; {system} and {input} where it has a place for them
    end: str  # belongs to the answer, and so to the loss
    special_tokens: tuple[str, ...]
    prompt: str = ""  # the generation prompt, before each answer, not in the loss
    answer: str = "{content}"  # what the model writes
    after: str = ""  # between an answer and what follows, not in the loss
    close: str = ""  # after the last message, unless an answer is to be generated; not in the loss
    system: str = (
        ""  # {content}; first of all, or in the slot of the first user's message. "": system messages are refused
    )
    default_system: str = ""  # the content of the system message, where there is none
    input: str = (
        "\n{content}"  # what the slot {input} becomes, or what is put below the content if there is no such slot
    )
    strip: bool = False  # take white space from both ends of contents

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"template: name is {self.name!r:.80}: it must be a word")
        marks = self.special_tokens
        if (
            isinstance(marks, str)
            or not isinstance(marks, Sequence)
            or not all(isinstance(mark, str) and mark for mark in marks)
            or len(set(marks)) < len(marks)
        ):
            raise self._error("special_tokens", "it must be a list of different marks")
        object.__setattr__(self, "special_tokens", tuple(marks))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "strip":
                check_flag(f"template {self.name!r}: strip", value)
            elif field.name != "special_tokens" and (not isinstance(value, str) or not _is_unicode(value)):
                raise self._error(field.name, "it must be text")
        slots = {"user": ["{content}"], "answer": ["{content}"], "input": ["{content}"], "system": ["{content}"]}
        optional = {"user": {"{system}", "{input}"}}
        for name in ("user", "prompt", "answer", "end", "after", "close", "system", "input"):
            found = _SLOT.findall(getattr(self, name))
            if name == "system" and not self.system:
                continue
            if len(set(found)) < len(found) or set(found) - optional.get(name, set()) != set(slots.get(name, [])):
                wanted = "with {content} in it, once" if name in slots else "without a slot"
                raise self._error(name, f"it must be text {wanted}")
        if self.end not in marks:
            raise self._error("end", f"it must be one of the special_tokens, {list(marks)!r:.80}")
        if self.default_system and not self.system:
            raise self._error("default_system", "there is no field `system` that says where it stands")
        if "{system}" in self.user and not self.system:
            raise self._error("user", "there is no field `system` for its slot {system}")

    def to_dict(self) -> dict[str, Any]:
        """Its fields, as JSON has them."""
        return asdict(self) | {"special_tokens": list(self.special_tokens)}

    @classmethod
    def from_dict(cls, data: Any, source: str = "template") -> Template:
        """The template of such fields. ConfigError, beginning with `source`, for a field that is missing, unknown or wrong."""
        if not isinstance(data, dict):
            raise ConfigError(f"{source}: is {data!r:.80}: it must be an object with the fields of a template")
        known = [field.name for field in fields(cls)]
        for name in data:
            if name not in known:
                raise ConfigError(f"{source}: there is no field {name!r:.80}{did_you_mean(str(name), known)}")
        for name in ("name", "user", "end", "special_tokens"):
            if name not in data:
                raise ConfigError(f"{source}: the field {name!r} is missing")
        try:
            return cls(**data)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}" if source != "template" else str(error)) from None

    def render(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        """The conversation as text, for people: in it a mark and the same letters of a user's look alike.

        `generation_prompt`: up to where the model is to write. DataError for messages that `check_messages` refuses.
        """
        return "".join(piece.text for piece in self._pieces(messages, generation_prompt))

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        generation_prompt: bool = False,
        last_only: bool = False,
    ) -> tuple[list[int], list[bool]]:
        """(ids, is_answer), of equal length: the tokens, and for each whether it belongs to an answer or ends one.

        With `last_only` the last answer alone counts. `encode(t, messages[:-1], generation_prompt=True)` is the beginning of
        `encode(t, messages)`. With `tokenizer.marks_prompts` the mark stands before everything, as a model expects that read it
        before each document. DataError for messages that cannot be; TokenizerError for marks that the tokenizer lacks, and for
        text that it cannot encode.
        """
        marks = self._mark_ids(tokenizer)
        pieces = list(self._pieces(messages, generation_prompt))
        last = max((piece.answer for piece in pieces if piece.answer is not None), default=None)
        ids = tokenizer.encode_prompt("")
        if ids and pieces and pieces[0].is_mark and marks[pieces[0].text] == ids[0]:  # the template has it already
            ids = []
        is_answer = [False] * len(ids)
        continues = False  # whether text is before
        for (is_mark, _, answer), group in groupby(pieces, lambda piece: piece[1:]):
            texts = [piece.text for piece in group]
            new = (
                [marks[text] for text in texts] if is_mark else self._encode_text(tokenizer, "".join(texts), continues)
            )
            continues = not is_mark
            ids += new
            is_answer += [answer is not None and (answer == last or not last_only)] * len(new)
        return ids, is_answer

    def end_id(self, tokenizer: Tokenizer) -> int:
        """The id at which an answer ends. TokenizerError if the tokenizer lacks a mark."""
        return self._mark_ids(tokenizer)[self.end]

    def lacks(self, tokenizer: Tokenizer) -> list[str]:
        """Its marks that a tokenizer does not have, to be given to `add_special`."""
        known = tokenizer.known_marks()
        return [mark for mark in self.special_tokens if mark not in known]

    def _mark_ids(self, tokenizer: Tokenizer) -> dict[str, int]:
        if lacking := self.lacks(tokenizer):
            raise TokenizerError(
                f"template {self.name!r}: this {tokenizer.name} tokenizer has no {', '.join(map(repr, lacking))}: use "
                f"tokenizer.add_special({lacking!r}), and model.resize_vocabulary for its new ids, before training"
            )
        return tokenizer.known_marks()

    def _encode_text(self, tokenizer: Tokenizer, text: str, continues: bool) -> list[int]:
        try:
            return tokenizer.encode_continuation(text) if continues else tokenizer.encode(text)
        except TokenizerError as error:
            raise TokenizerError(f"template {self.name!r}: in {text!r:.80}: {error}") from None

    def _pieces(self, messages: Sequence[Message], generation_prompt: bool) -> Iterator[_Piece]:
        """All texts and marks in their order."""
        checked = check_messages(messages)
        if generation_prompt and checked[-1]["role"] != "user":
            raise DataError(f"messages[{len(checked) - 1}]: an answer can be generated after a user's message alone")
        if checked[0]["role"] == "text":
            checked = [{"role": "assistant", "content": checked[0]["content"]}]
            yield from self._answer(checked[0]["content"], 0)
            yield from self._fixed(self.close, 1, None)
            return
        system = self.default_system
        if checked[0]["role"] == "system":
            system = checked.pop(0)["content"]
            if not self.system:
                raise DataError(
                    f"messages[0]: template {self.name!r} has no place for a system message: drop it, or use another template"
                )
        n_answers = 0
        if system and "{system}" not in self.user:
            yield from self._filled(self.system, 0, None, content=system)
            system = ""
        for message in checked:
            if message["role"] == "user":
                yield from self._user(message, system, n_answers)
                system = ""
            else:
                yield from self._fixed(self.prompt, n_answers, None)
                yield from self._answer(message["content"], n_answers)
                n_answers += 1
        yield from self._fixed(self.prompt if generation_prompt else self.close, n_answers, None)

    def _user(self, message: Message, system: str, n_finished: int) -> Iterator[_Piece]:
        content, below = message["content"], message.get("input", "")
        if below and "{input}" not in self.user:
            content, below = content + self.input.replace("{content}", below), ""
        if self.strip:  # where a system message stands before it, this is no end of the text
            content = content.rstrip() if system else content.strip()
        slots = {"{system}": (self.system, system), "{input}": (self.input, below)}
        for part in _SLOT.split(self.user):
            if part == "{content}":
                yield _Piece(content, False, n_finished, None)
            elif part in slots:
                pattern, inner = slots[part]
                yield from self._filled(pattern if inner else "", n_finished, None, content=inner)
            else:
                yield from self._fixed(part, n_finished, None)

    def _answer(self, content: str, n: int) -> Iterator[_Piece]:
        yield from self._filled(self.answer, n, n, content=content.strip() if self.strip else content)
        yield _Piece(self.end, True, n, n)
        yield from self._fixed(self.after, n, None)

    def _filled(self, pattern: str, n_finished: int, answer: int | None, content: str) -> Iterator[_Piece]:
        for part in _SLOT.split(pattern):
            if part == "{content}":
                yield _Piece(content, False, n_finished, answer)
            else:
                yield from self._fixed(part, n_finished, answer)

    def _fixed(self, text: str, n_finished: int, answer: int | None) -> Iterator[_Piece]:
        """A template's own text, cut at its marks."""
        marks = "|".join(re.escape(mark) for mark in sorted(self.special_tokens, key=len, reverse=True))
        for k, part in enumerate(re.split(f"({marks})", text)):
            if part:
                yield _Piece(part, k % 2 == 1, n_finished, answer)

    def _error(self, field: str, wanted: str) -> ConfigError:
        return ConfigError(f"template {self.name!r:.80}: {field} is {getattr(self, field)!r:.80}: {wanted}")


def check_messages(messages: Sequence[Message], where: str = "messages") -> list[dict[str, str]]:
    """The messages of a conversation, with "system" for "developer" and without an empty input.

    A system message may come first; then users and assistants take turns, a user first. The last may be a user's, which waits for
    an answer. Or one message of the role "text" is all. DataError, beginning with `where`, for all else: a role that is none
    of these, an answer first, two of a role in a row (join them), an empty answer, a content that is not text.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise DataError(f"{where}: is {messages!r:.80}: it must be a list of messages with a role and a content")
    checked: list[dict[str, str]] = []
    for i, message in enumerate(messages):
        here, before = f"{where}[{i}]", checked[-1]["role"] if checked else None
        made = _check_message(message, here)
        role = made["role"]
        if before == "text" or (role == "text" and checked):
            raise DataError(
                f"{here}: a text without roles stands alone: make it one conversation, and the rest another"
            )
        if role == "system" and checked:
            raise DataError(f"{here}: a system message stands first: move it there, or join it to the user's message")
        if role == "assistant" and before in (None, "system"):
            raise DataError(f"{here}: an answer comes before any question: drop it, or put a user's message before it")
        if role == before:
            raise DataError(f"{here}: a second message of the {role} in a row: join it to the one before")
        checked.append(made)
    if not checked or checked[-1]["role"] == "system":
        raise DataError(f"{where}: there is no message of a user's: it needs one")
    return checked


def _check_message(message: Any, here: str) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise DataError(f"{here}: is {message!r:.80}: it must be an object with a role and a content")
    for name in message:
        if name not in ("role", "content", "input"):
            raise DataError(f"{here}: {name!r:.80} is no part of a message: role and content are, and a user's input")
    role = message.get("role")
    role = "system" if role == "developer" else role
    if role not in (*ROLES, "text"):
        raise DataError(f"{here}: role is {role!r:.80}: it must be system, user or assistant")
    made = {"role": role, "content": check_content(message.get("content"), f"{here}: content")}
    if role in ("assistant", "text") and not made["content"].strip():
        what = "answer" if role == "assistant" else "text"
        raise DataError(f"{here}: content: an empty {what} teaches nothing: drop the conversation, or write one")
    if message.get("input") not in (None, ""):
        if role != "user":
            raise DataError(f"{here}: input: only a user's message has one")
        made["input"] = check_content(message["input"], f"{here}: input")
    return made


def check_content(value: Any, where: str) -> str:
    """`value`, if it is Unicode text; DataError beginning with `where`."""
    if not isinstance(value, str):
        raise DataError(f"{where} is {value!r:.80}: it must be text")
    if not _is_unicode(value):
        raise DataError(f"{where} holds half a character (a lone surrogate): decode the text with the right encoding")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


TEMPLATES = {
    template.name: template
    for template in (
        # the book's wording (section 7.2): stanford_alpaca's, without its sentence about an input; a system message takes the
        # place of the first paragraph
        Template(
            name="alpaca",
            default_system="Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.",
            system="{content}",
            user="\n\n### Instruction:\n{content}{input}",
            input="\n\n### Input:\n{content}",
            prompt="\n\n### Response:\n",
            end=END_OF_TEXT,
            special_tokens=(END_OF_TEXT,),
        ),
        # https://huggingface.co/microsoft/Phi-3-mini-4k-instruct; a finished conversation ends as a document does
        Template(
            name="phi3",
            system="<|system|>\n{content}<|end|>\n",
            user="<|user|>\n{content}<|end|>\n",
            prompt="<|assistant|>\n",
            end="<|end|>",
            after="\n",
            close=END_OF_TEXT,
            special_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", END_OF_TEXT),
        ),
        # https://github.com/openai/openai-python/blob/v0.28.1/chatml.md
        Template(
            name="chatml",
            system="<|im_start|>system\n{content}<|im_end|>\n",
            user="<|im_start|>user\n{content}<|im_end|>\n",
            prompt="<|im_start|>assistant\n",
            end="<|im_end|>",
            after="\n",
            special_tokens=("<|im_start|>", "<|im_end|>"),
        ),
        # Touvron et al. 2023 and chat_completion of the code with it: [INST] and <<SYS>> are letters, the spaces the model's
        Template(
            name="llama2",
            system="<<SYS>>\n{content}\n<</SYS>>\n\n",
            user="<s>[INST] {system}{content} [/INST]",
            answer=" {content} ",
            end="</s>",
            strip=True,
            special_tokens=("<s>", "</s>"),
        ),
        # a line for what is asked, then the answer: for a tokenizer that knows line breaks and the mark it always has
        Template(
            name="plain",
            system="{content}\n",
            user="{content}\n",
            end=END_OF_TEXT,
            special_tokens=(END_OF_TEXT,),
        ),
        # nothing at all: pairs of prompt and completion whose completions begin with their own space
        Template(
            name="bare",
            system="{content}",
            user="{content}",
            end=END_OF_TEXT,
            special_tokens=(END_OF_TEXT,),
        ),
    )
}
