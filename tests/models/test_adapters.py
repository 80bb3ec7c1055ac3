"""A PEFT adapter in the place of a model scores as PEFT's own wrapper does."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TinyKind, tiny_lm, tiny_model, tiny_tokenizer
from torch import Tensor

from rlprompt import search
from rlprompt.agents import PPO, RandomSearch
from rlprompt.check import ToyTask
from rlprompt.export import export_prompt
from rlprompt.models.lm import FrozenLM
from rlprompt.models.merging import DIFFERS, has_adapter, merge_obstacle
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Query

# PEFT asks for an attribute of transformers by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

QUERY, PROMPT = Query((5, 6, 7), (8,), ((9,), (10,))), TokenPrompt((12, 13))


def plain(model: Any) -> Tensor:
    """What the model makes of the row by itself."""
    ids = torch.tensor([[5, 6, 7, 12, 13, 8]])
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return logits[0, -1].log_softmax(-1)[[9, 10]]


def lora(kind: TinyKind = "llama", **settings: Any) -> Any:
    """A tiny model with a LoRA adapter that changes what it says."""
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "target_modules": ["c_attn"] if kind == "gpt2" else ["q_proj", "up_proj"],
        "fan_in_fan_out": kind == "gpt2",
    } | settings
    config = peft.LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **given)
    return peft.get_peft_model(tiny_model(kind), config).eval()


def saved(
    folder: Path,
    model: Any | None = None,
    *,
    tokenizer: bool = False,
    kind: TinyKind = "llama",
) -> str:
    """The folder of an adapter beside that of its base."""
    model = model or lora()
    base = folder / "base"
    tiny_model(kind).save_pretrained(base)
    tiny_tokenizer(kind).save_pretrained(base)
    model.save_pretrained(folder / "lora")
    named(folder / "lora", str(base))
    if tokenizer:
        tiny_tokenizer().save_pretrained(folder / "lora")
    return str(folder / "lora")


def named(adapter: Path, base: str | None) -> None:
    """Write the base into an adapter's config."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))


class TestWrapped:
    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    def test_a_model_with_lora_is_packed_and_scores_as_it_does(self, kind: TinyKind) -> None:
        model = lora(kind)
        expected = plain(model)
        assert float((expected - plain(tiny_model(kind))).abs().max()) > 0.01
        lm = FrozenLM(model, tiny_tokenizer(kind), "wrapped")
        assert lm.obstacle is None
        torch.testing.assert_close(lm.score([PROMPT], [QUERY])[0, 0], expected, rtol=0, atol=1e-4)

    def test_ppo_reads_its_hidden_states(self) -> None:
        lm = FrozenLM(lora(), tiny_tokenizer(), "wrapped")
        found = search(ToyTask(), lm, PPO(prompts=4), budget=80, seed=0)
        assert found.rows == 80


class TestFolder:
    @pytest.mark.parametrize("tokenizer", [False, True])
    def test_is_loaded_on_its_base(self, tmp_path: Path, tokenizer: bool) -> None:
        folder = saved(tmp_path, tokenizer=tokenizer)
        lm = FrozenLM.load(folder, dtype="float32")
        assert lm.obstacle is None
        assert lm.n_parameters == tiny_model().num_parameters()  # merged
        scored = lm.score([PROMPT], [QUERY])[0, 0]
        torch.testing.assert_close(scored, plain(lora()), rtol=0, atol=1e-4)
        base = FrozenLM.load(str(tmp_path / "base"), dtype="float32")
        assert lm.fingerprint.tokenizer == base.fingerprint.tokenizer
        assert lm.fingerprint.digest != base.fingerprint.digest
        assert lm.fingerprint == FrozenLM.load(folder, dtype="float32").fingerprint

    def test_loses_nothing_in_a_base_of_16_bits(self, tmp_path: Path) -> None:
        folder = saved(tmp_path)
        half = torch.nn.Module.bfloat16(tiny_model())
        half.save_pretrained(tmp_path / "base")
        wide = peft.PeftModel.from_pretrained(torch.nn.Module.float(half), folder).eval()
        scored = FrozenLM.load(folder, dtype="float32").score([PROMPT], [QUERY])[0, 0]
        torch.testing.assert_close(scored, plain(wide), rtol=0, atol=1e-4)

    def test_a_relative_base_is_found_beside_it(self, tmp_path: Path) -> None:
        folder = saved(tmp_path)
        named(Path(folder), "../base")
        scored = FrozenLM.load(folder, dtype="float32").score([PROMPT], [QUERY])[0, 0]
        torch.testing.assert_close(scored, plain(lora()), rtol=0, atol=1e-4)

    def test_its_own_tokens_make_room_in_the_table(self, tmp_path: Path) -> None:
        tokenizer = tiny_tokenizer()
        base = tiny_model()
        n_before = len(tokenizer)
        more: Any = tokenizer
        more.add_tokens(["<mood>"])
        base.resize_token_embeddings(len(tokenizer))
        model = peft.get_peft_model(
            base,
            peft.LoraConfig(
                r=2,
                target_modules=["q_proj"],
                modules_to_save=["embed_tokens"],
                ensure_weight_tying=True,
                task_type="CAUSAL_LM",
                init_lora_weights=False,
            ),
        ).eval()
        folder = saved(tmp_path, model)
        tokenizer.save_pretrained(folder)
        lm = FrozenLM.load(folder, dtype="float32")
        assert lm.n_vocabulary == n_before + 1
        assert lm.encode("<mood>") == (n_before,)
        scored = lm.score([PROMPT], [QUERY])[0, 0]
        torch.testing.assert_close(scored, plain(model), rtol=0, atol=1e-4)

    @pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT says that they are tied
    @pytest.mark.parametrize(
        ("kind", "target"), [("llama", "embed_tokens"), ("llama", "lm_head"), ("gpt2", "wte")]
    )
    def test_one_end_of_tied_weights_is_changed_alone(
        self, tmp_path: Path, kind: TinyKind, target: str
    ) -> None:
        model = lora(kind, target_modules=[target])
        expected = plain(model)
        lm = FrozenLM.load(saved(tmp_path, model, kind=kind), dtype="float32")
        torch.testing.assert_close(lm.score([PROMPT], [QUERY])[0, 0], expected, rtol=0, atol=1e-4)
        assert merge_obstacle(lm.model) == DIFFERS
        # Untied ones are merged.
        untied = tmp_path / "untied"
        tiny_model(kind, tie_word_embeddings=False).save_pretrained(untied)
        tiny_tokenizer(kind).save_pretrained(untied)
        named(tmp_path / "lora", str(untied))
        assert not has_adapter(FrozenLM.load(str(tmp_path / "lora"), dtype="float32").model)

    def test_brings_what_its_base_lacks(self, tmp_path: Path) -> None:
        whole = tiny_model(tie_word_embeddings=False)
        config = peft.LoraConfig(
            target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False
        )
        model = peft.get_peft_model(whole, config).eval()
        folder = saved(tmp_path, model)
        trunk: Any = tiny_model(tie_word_embeddings=False).base_model
        trunk.save_pretrained(tmp_path / "base")
        scored = FrozenLM.load(folder, dtype="float32").score([PROMPT], [QUERY])[0, 0]
        torch.testing.assert_close(scored, plain(model), rtol=0, atol=1e-4)
        with pytest.raises(ValueError, match=r"lacks 1 weight of a LlamaForCausalLM"):
            FrozenLM.load(str(tmp_path / "base"))


class TestMessages:
    @pytest.mark.parametrize("layer", ["layers", "layers.1"])
    def test_tensors_that_have_no_place_are_named(self, tmp_path: Path, layer: str) -> None:
        folder = saved(tmp_path)
        file = Path(folder) / "adapter_model.safetensors"
        tensors = load_file(file)
        moved = {
            name.replace(f".model.{layer}", f".model.language_model.{layer}"): tensor
            for name, tensor in tensors.items()
        }
        count = len(moved.keys() - tensors.keys())
        assert count == (4 if layer == "layers.1" else 8)
        save_file(moved, file)
        message = rf"not fit its base model .*: {count} of its tensors have no place .*language_mod"
        with pytest.raises(ValueError, match=message):
            FrozenLM.load(folder)

    def test_a_file_that_lacks_tensors_is_refused(self, tmp_path: Path) -> None:
        folder = saved(tmp_path)
        file = Path(folder) / "adapter_model.safetensors"
        tensors = load_file(file)
        save_file({name: of for name, of in tensors.items() if "layers.1" not in name}, file)
        with pytest.raises(ValueError, match=r"not fit .*: its file lacks tensors of layers that"):
            FrozenLM.load(folder)

    def test_a_base_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        folder = saved(tmp_path)
        shutil.rmtree(tmp_path / "base")
        with pytest.raises(ValueError, match=r"the base model of the adapter .*base_model_name_or"):
            FrozenLM.load(folder)
        named(Path(folder), None)
        with pytest.raises(ValueError, match=r"is a PEFT adapter \(LORA\) .* names no base model"):
            FrozenLM.load(folder)

    def test_a_base_that_does_not_fit_is_named(self, tmp_path: Path) -> None:
        folder = saved(tmp_path)
        tiny_model(hidden_size=16).save_pretrained(tmp_path / "base")
        with pytest.raises(ValueError, match=r"lora' does not fit its base model '.*base': .*size"):
            FrozenLM.load(folder)

    def test_a_missing_package_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = saved(tmp_path)
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "peft" else find(name)
        )
        with pytest.raises(ValueError, match=r"pip install 'rlprompt\[peft\]'$"):
            FrozenLM.load(folder)

    def test_an_exported_prompt_is_no_model(self, tmp_path: Path) -> None:
        lm, task = tiny_lm(), ToyTask()
        found = search(task, lm, RandomSearch(), budget=40, length=2)
        export_prompt(found, tmp_path / "found", lm, task)
        folder = str(tmp_path / "found")
        with pytest.raises(ValueError, match=r"is a prompt that rlprompt exported, no model") as e:
            FrozenLM.load(folder)
        assert f"rlprompt score {folder} EXPERIMENT.yaml" in str(e.value)
        assert "'tiny-llama'" in str(e.value)
        assert "\n" not in str(e.value)
