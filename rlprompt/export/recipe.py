"""Python that uses an exported prompt, for its card: complete, and with the numbers of rlprompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from rlprompt.export.folder import Facts, Usage
from rlprompt.models.loading import model_names
from rlprompt.tasks.verbaliser import spell
from rlprompt.template import MASK, PROMPT, Template

CLASSES = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}


@dataclass(frozen=True)
class Recipe:
    """Writes the code.

    Args:
        facts: Of the prompt.
    """

    facts: Facts

    def served(self, usage: Usage) -> str:
        """With `PromptServer`."""
        ask = "classify" if usage.label_words else "generate"
        return _lines(
            "from rlprompt import FrozenLM, PromptServer, load_prompt",
            "",
            self._frozen,
            'server = PromptServer(lm, {"mine": load_prompt(".")})',
            _example(usage),
            f'print(server.{ask}([("mine", example)]))',
        )

    def typed(self, usage: Usage) -> str:
        """As text, with what stands around it; not for masked models."""
        before, after = ("".join(filter(None, side)).rstrip(" ") for side in sides(usage))
        return _lines(
            _example(usage),
            f"before = {before!r}.format(**example)",
            f"after = {after!r}.format(**example)",
            f"text = before + {self.facts.text!r} + after",
        )

    def fed(self) -> str:
        """With plain transformers: token ids, or vectors between embedded text."""
        ids = self.facts.ids
        if ids is not None:
            return _lines(
                *self._loaded(),
                *self._around(),
                f"prompt = {list(ids)}",
                "fed = torch.tensor([before + prompt + after])",
                *self._read("model(input_ids=fed"),
            )
        return _lines(
            *self._loaded("from safetensors.torch import load_file"),
            *self._around(),
            'prompt = load_file("prompt.safetensors")["prompt"].to(model.dtype)',
            *self._between(),
        )

    def adapted(self) -> str:
        """With PEFT, which puts vectors in front of all text."""
        lines = [
            *self._loaded("from peft import PeftModel"),
            *self._around(),
            'adapted = PeftModel.from_pretrained(model, ".")',
        ]
        if self.facts.before_ids is None or not self._sides[1]:
            begins = len(self.facts.before_ids or ())
            rows = f"[{begins}:]" if begins else ""
            get = f"prompt = adapted.get_prompt(batch_size=1)[0]{rows}.to(model.dtype)"
            return _lines(*lines, get, *self._between())
        call = "adapted(input_ids=fed, attention_mask=torch.ones_like(fed)"
        # What stands before the prompt is in the adapter.
        return _lines(*lines, "fed = torch.tensor([after])", *self._read(call))

    def _between(self) -> list[str]:
        """Lines that put the vectors `prompt` between the embedded text."""
        return [
            "embed = model.get_input_embeddings()",
            "around = [embed(torch.tensor(part, dtype=int)) for part in (before, after)]",
            "fed = torch.cat([around[0], prompt, around[1]])[None]",
            *self._read("model(inputs_embeds=fed"),
        ]

    @property
    def _frozen(self) -> str:
        model = self.facts.model
        revision = f", revision={model.revision!r}" if model.revision else ""
        return f"lm = FrozenLM.load({model.model!r}, dtype={model.dtype!r}{revision})"

    def _loaded(self, *imports: str) -> list[str]:
        """Lines that give `model` and `tokenizer`."""
        model = self.facts.model
        if is_our_name(model.model):
            loading = ["from rlprompt import FrozenLM", "", self._frozen]
            return ["import torch", *imports, *loading, "model, tokenizer = lm.model, lm.tokenizer"]
        revision = f", revision={model.revision!r}" if model.revision else ""
        name = CLASSES[model.kind]
        return [
            "import torch",
            *imports,
            f"from transformers import {name}, AutoTokenizer",
            "",
            f"name = {model.model!r}",
            f"model = {name}.from_pretrained(name, dtype=torch.{model.dtype}{revision})",
            f"tokenizer = AutoTokenizer.from_pretrained(name{revision})",
        ]

    @property
    def _sides(self) -> tuple[list[str], list[str]]:
        """Expressions for the ids before and after the prompt."""
        usage, model = self.facts.task.usage, self.facts.model
        parts = (["text before"], ["text after"]) if usage is None else sides(usage)
        before, after = (_ids(side) for side in parts)
        if model.prefix_ids:
            before = [str(list(model.prefix_ids)), *before]
        if model.suffix_ids:
            after = [*after, str(list(model.suffix_ids))]
        return before, after

    def _around(self) -> list[str]:
        """Lines that give `before` and `after`, the ids around the prompt."""
        usage, (before, after) = self.facts.task.usage, self._sides
        return [
            "",
            "example = {}" if usage is None else _example(usage),
            "",
            "def ids(text):",
            '    text = text.format(**example).rstrip(" ")',
            "    return tokenizer(text, add_special_tokens=False).input_ids",
            "",
            f"before = {' + '.join(before) or '[]'}",
            f"after = {' + '.join(after) or '[]'}",
        ]

    def _read(self, call: str) -> list[str]:
        """Lines that run the model and look at the answer's first token."""
        usage, kind = self.facts.task.usage, self.facts.model.kind
        if kind == "encoder-decoder":
            call += ", decoder_input_ids=torch.tensor([[model.config.decoder_start_token_id]])"
        lines, at = [], "-1"
        if kind == "masked":
            whole = f"(before + [0] * {self.facts.shape[0]} + after)"
            lines, at = [f"at = {whole}.index(tokenizer.mask_token_id)"], "at"
        lines.append(f"answer = {call}).logits[0, {at}].log_softmax(-1)")
        words = spelt(usage) if usage else None
        if words is None:
            return [*lines, "print(tokenizer.decode(answer.argmax()))"]
        return [
            *lines,
            f"words = {words!r}  # of a word of several tokens, the first",
            "print({label: answer[ids(word)[0]].item() for label, word in words.items()})",
        ]


def is_our_name(model: str) -> bool:
    """Whether transformers does not know the model by this name."""
    return model in model_names() or model.endswith(".gguf")


def sides(usage: Usage) -> tuple[list[str | None], list[str | None]]:
    """Format strings of what stands before and after the prompt; None where the mask is."""
    found: tuple[list[str | None], list[str | None]] = ([""], [""])
    side = 0
    for text, name, _, _ in Formatter().parse(usage.template):
        _append(found[side], text.replace("{", "{{").replace("}", "}}"))
        if name == PROMPT:
            side = 1
        elif name == MASK:
            found[side].extend((None, ""))
        elif name is not None:
            _append(found[side], f"{{{name}}}")
    return found


def _append(side: list[str | None], text: str) -> None:
    """Add to the last of the strings, which there is."""
    assert side[-1] is not None
    side[-1] += text


def _ids(side: Sequence[str | None]) -> list[str]:
    """An expression for the ids of each part."""
    return [
        "[tokenizer.mask_token_id]" if part is None else f"ids({part!r})"
        for part in side
        if part is None or part.strip(" ")
    ]


def spelt(usage: Usage) -> dict[str, str] | None:
    """Class to its one label word as it follows the text; None if there is more to it."""
    if usage.label_words is None or usage.calibration != "none":
        return None
    if any(len(words) > 1 for words in usage.label_words.values()):
        return None
    prefix = Template(usage.template).answer_prefix
    return {label: spell(word, prefix) for label, (word,) in usage.label_words.items()}


def _example(usage: Usage) -> str:
    return f"example = {dict.fromkeys(Template(usage.template).fields, '...')!r}"


def _lines(*lines: str) -> str:
    return "\n".join(lines)
