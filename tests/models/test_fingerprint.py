"""Two models have one fingerprint where they answer alike, and another where they do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from transformers import LlamaConfig, Phi3Config

from rlprompt.models.fingerprint import hash_config
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Query

Edit = Callable[[dict[str, Any]], object]

CHAT = "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("mistral-sliding").save_pretrained(tmp_path)
    tokenizer: Any = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def loaded(folder: Path, **options: Any) -> FrozenLM:
    return FrozenLM.load(str(folder), **{"dtype": "float32", "device": "cpu", **options})


def edit(folder: Path, name: str, change: Edit) -> None:
    state = json.loads((folder / name).read_text("utf-8"))
    change(state)
    (folder / name).write_text(json.dumps(state), "utf-8")


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("config.json", lambda s: s.update(rms_norm_eps=0.1), "config"),
        ("config.json", lambda s: s.update(sliding_window=3), "config"),
        ("config.json", lambda s: s.update(sliding_window=None), "config"),
        ("config.json", lambda s: s["rope_parameters"].update(rope_theta=500.0), "config"),
        ("config.json", lambda s: s["rope_parameters"].update(YARN), "config"),
        ("generation_config.json", lambda s: s.update(eos_token_id=[2, 7]), "ends"),
        ("tokenizer_config.json", lambda s: s.update(bos_token="</s>"), "chat"),
    ],
)
def test_what_decides_an_answer_beside_the_weights_is_in_it(
    folder: Path, name: str, change: Edit, field: str
) -> None:
    before = loaded(folder)
    edit(folder, name, change)
    after = loaded(folder)
    assert after.fingerprint.digest != before.fingerprint.digest
    differing = {
        key
        for key, value in after.fingerprint.content.items()
        if value != before.fingerprint.content[key]
    }
    assert differing == {field}
    query, prompt = Query(tuple(range(5, 25)), (), ((7,), (8,))), TokenPrompt((9, 10))
    first, second = (lm.score([prompt], [query]) for lm in (before, after))
    assert torch.allclose(first, second, atol=1e-4) == (field != "config")  # it is for a reason


def test_the_template_of_chats_is_in_it(folder: Path) -> None:
    before = loaded(folder).fingerprint
    (folder / "chat_template.jinja").write_text(CHAT.replace(": ", " says "), "utf-8")
    after = loaded(folder).fingerprint
    assert after.chat != before.chat
    assert after.digest != before.digest


def test_what_the_decoder_begins_with_is_in_it() -> None:
    marks = [
        FrozenLM(tiny_model("t5", decoder_start_token_id=i), tiny_tokenizer("t5")).fingerprint
        for i in (0, 3)
    ]
    assert [mark.special for mark in marks] == [
        "after 2, start 0",
        "after 2, start 3",
    ]
    assert marks[0].digest != marks[1].digest


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda s: s.update(transformers_version="5.99.0")),
        ("config.json", lambda s: s.update(architectures=["Of", "Mine"], dtype="bfloat16")),
        ("config.json", lambda s: s.update(attention_dropout=0.5, initializer_range=1.0)),
        ("config.json", lambda s: s.update(use_cache=False, _name_or_path="/where/it/was")),
        ("config.json", lambda s: s["rope_parameters"].update(rope_theta=10000)),  # not 10000.0
        ("config.json", lambda s: s.pop("hidden_act")),  # as is usual
        ("generation_config.json", lambda s: s.update(temperature=0.3, top_k=7)),
        ("tokenizer_config.json", lambda s: s.update(model_max_length=99)),
    ],
)
def test_what_changes_no_answer_is_not(folder: Path, name: str, change: Edit) -> None:
    before = loaded(folder).fingerprint
    edit(folder, name, change)
    assert loaded(folder).fingerprint.content == before.content


def test_a_dtype_is_a_field_of_its_own(folder: Path) -> None:
    wide, half = (loaded(folder, dtype=d).fingerprint for d in ("float32", "bfloat16"))
    differing = {key for key in wide.content if wide.content[key] != half.content[key]}
    assert differing == {"dtype", "weights"}


def test_it_is_the_same_in_every_process() -> None:
    """Studies depend on it: a change makes each of them another one."""
    mark = FrozenLM(tiny_model("llama"), tiny_tokenizer()).fingerprint
    assert mark.config[:16] == "30b02afe7b6dd976"
    assert (mark.special, mark.ends, mark.chat) == ("", "2", "")


class TestConfig:
    def test_a_setting_that_a_later_version_adds_changes_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, state = hash_config(LlamaConfig(hidden_size=64)), LlamaConfig.to_dict

        def later(self: LlamaConfig) -> dict[str, Any]:
            return {**state(self), "new_setting": False}

        monkeypatch.setattr(LlamaConfig, "to_dict", later)
        assert hash_config(LlamaConfig(hidden_size=64)) == before

    def test_a_part_that_lacks_something_is_not_taken_for_a_usual_one(self) -> None:
        one, other = LlamaConfig(), LlamaConfig()
        assert other.rope_parameters is not None
        del other.rope_parameters["rope_type"]
        assert hash_config(one) != hash_config(other)

    def test_types_differ(self) -> None:
        assert hash_config(LlamaConfig()) != hash_config(Phi3Config())
