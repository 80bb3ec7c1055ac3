"""PEFT loads an exported prompt and computes what rlprompt computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from exports import TOKENS, WORDS, class_task, export, prefix, soft
from tiny import KINDS, PACKABLE, TinyKind, tiny_lm, tiny_model
from torch import Tensor

from rlprompt.export.folder import ExportedPrompt
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.template import Query

peft: Any = pytest.importorskip("peft")
# PEFT 0.21 asks transformers 5 for something by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TOLERANCE = 1e-5  # nats, float32
# Templates that have nothing of the example before the prompt.
IN_FRONT = ("{prompt} {text}", "Film:{prompt} {text} It")


def plain_model(kind: TinyKind = "llama") -> Any:
    """A model that rlprompt never touched."""
    model: Any = tiny_model(kind)
    return model.eval()


def logits(model: Any, kind: str, **fed: Tensor) -> Tensor:
    """(T, V) of one sequence; of an encoder-decoder those of the first token of its answer."""
    if kind == "encoder-decoder":
        fed["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.no_grad():
        found: Tensor = model(**fed).logits[0]
    return found


def answer(found: Tensor, lm: FrozenLM, query: Query, n_prompt: int) -> Tensor:
    """Log-probabilities (V,) where the answer is read."""
    at = -1
    if lm.kind == "masked":
        assert lm.mask_id is not None
        at = (*query.head_ids, *[-1] * n_prompt, *query.tail_ids).index(lm.mask_id)
    return found[at].log_softmax(-1)


def of_peft(base: Any, folder: Path, lm: FrozenLM, query: Query, n_prompt: int) -> Tensor:
    adapted = peft.PeftModel.from_pretrained(base, folder).eval()
    ids = torch.tensor([query.tail_ids])
    found = logits(adapted, lm.kind, input_ids=ids, attention_mask=torch.ones_like(ids))
    return answer(found, lm, query, n_prompt)


def of_embeddings(model: Any, lm: FrozenLM, query: Query, exported: ExportedPrompt) -> Tensor:
    embed = model.get_input_embeddings()
    head, tail = (
        embed(torch.tensor(ids, dtype=torch.long)) for ids in (query.head_ids, query.tail_ids)
    )
    vectors = torch.cat([head, torch.tensor(exported.vectors), tail])[None]
    return answer(logits(model, lm.kind, inputs_embeds=vectors), lm, query, len(exported.prompt))


def check_parity(
    lm: FrozenLM, base: Any, folder: Path, prompt: Prompt, template: str, text: str
) -> None:
    """PEFT, plain transformers and our scores say the same of every label word."""
    # A decoder's words follow no space unless they bring one.
    task = class_task(template, {label: f" {word}" for label, word in WORDS.items()})
    exported = export(folder, lm, prompt, task)
    query = task.template.query({"text": text}, lm, task.candidates(lm))
    (ours,) = lm.score([prompt], [query])[0]
    words = [ids[0] for ids in query.candidates]
    plain = of_embeddings(base, lm, query, exported)
    adapted = of_peft(base, folder, lm, query, len(prompt))
    assert (plain - adapted).abs().max() < TOLERANCE
    assert (adapted[words] - ours).abs().max() < TOLERANCE
    assert (plain[words] - ours).abs().max() < TOLERANCE


@pytest.mark.parametrize("is_soft", [False, True], ids=["tokens", "soft"])
@pytest.mark.parametrize("template", IN_FRONT)
@pytest.mark.parametrize("kind", KINDS)
def test_peft_computes_what_we_compute(
    kind: TinyKind, template: str, is_soft: bool, tmp_path: Path
) -> None:
    lm = tiny_lm(kind)
    if lm.kind == "masked":
        template += " {mask} ."
    prompt = soft(lm) if is_soft else TOKENS
    check_parity(lm, plain_model(kind), tmp_path, prompt, template, "the film was great")


@pytest.mark.parametrize("kind", PACKABLE)
def test_peft_computes_what_we_compute_with_a_prefix(kind: TinyKind, tmp_path: Path) -> None:
    lm = tiny_lm(kind)
    prompt, task = prefix(lm), class_task("{prompt} {text} It")
    export(tmp_path, lm, prompt, task)
    query = task.template.query({"text": "the film was great"}, lm, task.candidates(lm))
    (ours,) = lm.score([prompt], [query])[0]
    adapted = peft.PeftModel.from_pretrained(plain_model(kind), tmp_path).eval()
    # Special tokens are not in the adapter: they come after a prefix.
    ids = torch.tensor([query.head_ids + query.tail_ids])
    found = logits(adapted, lm.kind, input_ids=ids, attention_mask=torch.ones_like(ids))
    words = [word[0] for word in query.candidates]
    assert (found[-1].log_softmax(-1)[words] - ours).abs().max() < TOLERANCE


def test_peft_computes_what_we_compute_with_the_default_models_tokenizer(
    tmp_path: Path, real_tokenizer: FrozenLM
) -> None:
    lm = real_tokenizer
    for name, prompt in (("tokens", TOKENS), ("soft", soft(lm))):
        folder, template = tmp_path / name, "{prompt} {text} It was"
        check_parity(lm, lm.model, folder, prompt, template, "A dull film.")


def test_texts_padded_on_the_right_are_told_apart_as_alone(tmp_path: Path) -> None:
    lm, task = tiny_lm(), class_task("{prompt} {text}")
    export(tmp_path, lm, soft(lm), task)
    queries = [task.template.query({"text": t}, lm) for t in ("it", "the film was great")]
    adapted = peft.PeftModel.from_pretrained(plain_model(), tmp_path).eval()
    width = max(len(query.tail_ids) for query in queries)
    ids = torch.tensor([q.tail_ids + (0,) * (width - len(q.tail_ids)) for q in queries])
    mask = torch.tensor([[int(i < len(q.tail_ids)) for i in range(width)] for q in queries])
    with torch.no_grad():
        together = adapted(input_ids=ids, attention_mask=mask).logits
    for row, query in zip(together, queries, strict=True):
        alone = logits(adapted, lm.kind, input_ids=torch.tensor([query.tail_ids]))
        end = len(query.tail_ids) - width - 1
        assert (row[end] - alone[-1]).abs().max() < TOLERANCE


def test_a_prompt_behind_the_text_is_in_the_adapter_alone(tmp_path: Path) -> None:
    lm = tiny_lm("opt")
    prompt = soft(lm)
    exported = export(tmp_path, lm, prompt, class_task("{text} {prompt}"))
    assert exported.facts.before_ids is None
    adapted = peft.PeftModel.from_pretrained(plain_model("opt"), tmp_path)
    found = adapted.get_prompt(batch_size=1)[0].detach().numpy()
    np.testing.assert_array_equal(found, prompt.vectors)
    assert exported.facts.task.usage is not None
    assert "not what was scored" in (tmp_path / "README.md").read_text("utf-8")


def test_the_special_tokens_before_a_prompt_are_in_the_adapter(tmp_path: Path) -> None:
    lm = tiny_lm("opt")
    exported = export(tmp_path, lm, TOKENS, class_task("{prompt} {text}"))
    assert exported.facts.before_ids == lm.prefix_ids == (1,)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert config["base_model_name_or_path"] == "tiny-opt"
    assert (config["num_virtual_tokens"], config["token_dim"]) == (4, lm.hidden_size)
    (rows,) = safetensors.numpy.load_file(tmp_path / "adapter_model.safetensors").values()
    np.testing.assert_array_equal(rows, lm.embeddings()[[1, *TOKENS.ids]])
