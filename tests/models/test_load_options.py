"""What is said of how a model is loaded: handed on, kept, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyKind, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.models.fingerprint import loading
from rlprompt.models.lm import FrozenLM
from rlprompt.models.load_options import checked_options
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.template import Query


def saved(folder: Path, kind: TinyKind = "llama") -> str:
    tiny_model(kind).save_pretrained(folder)
    tiny_tokenizer(kind).save_pretrained(folder)
    return str(folder)


class TestChecked:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"quantisation_config": {}},
                "unknown key 'quantisation_config' of load; did you mean 'quant",
            ),
            ({"trust_remote_code": True}, "trust_remote_code cannot be given: it runs code that"),
            ({"torch_dtype": "float16"}, "torch_dtype cannot be given: .*`dtype: bfloat16`"),
            ({"device": "cpu"}, "device cannot be given: .*`device: cuda:1`"),
            ({"token": "secret"}, "token cannot be given: a study keeps what is given here"),
            (
                {"load_in_4bit": True},
                r"load_in_4bit cannot be given: say `quantization_config: \{load_in_4bit: true\}`",
            ),
            ({"quantization_config": "nf4"}, ".*must be a mapping such as .*, got 'nf4'"),
            ({"quantization_config": {"bits": 4}}, ".*names no method: give quant_method"),
            ({"max_memory": {0: object()}}, "a value cannot be kept with a study: "),
        ],
    )
    def test_what_is_wrong_is_said(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}"):
            checked_options(options)

    def test_configs_of_transformers_become_mappings(self) -> None:
        class Config:
            def to_dict(self) -> dict[str, Any]:
                return {"quant_method": "hqq", "nbits": 4}

        options = checked_options({"quantization_config": Config()})
        assert options == {"quantization_config": {"quant_method": "hqq", "nbits": 4}}


class TestLoad:
    def test_attention_is_as_asked_for_and_in_the_fingerprint(self, tmp_path: Path) -> None:
        name = saved(tmp_path)
        usual = FrozenLM.load(name, dtype="float32")
        eager = FrozenLM.load(name, dtype="float32", load={"attn_implementation": "eager"})
        assert usual.fingerprint.attention == ""
        assert eager.model.config._attn_implementation == "eager"
        assert eager.fingerprint.attention == "eager"
        assert eager.fingerprint.weights == usual.fingerprint.weights
        assert eager.fingerprint.digest != usual.fingerprint.digest
        fields = vars(eager.fingerprint)
        again = FrozenLM.load(name, **loading(fields))
        assert again.fingerprint == eager.fingerprint

    def test_a_missing_library_is_named(self, tmp_path: Path) -> None:
        name = saved(tmp_path)
        config = {"quantization_config": {"quant_method": "hqq"}}
        with pytest.raises(ValueError, match=r"needs a package that is not there: .*HQQ") as error:
            FrozenLM.load(name, load=config)
        assert "\n" not in str(error.value)

    def test_a_device_is_said_once(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="'cpu' and load: device_map both say where"):
            FrozenLM.load(saved(tmp_path), device="cpu", load={"device_map": "auto"})

    @pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral-sliding", "bert", "t5"])
    def test_a_model_spread_over_memory_and_disk_scores_the_same(
        self, kind: TinyKind, tmp_path: Path
    ) -> None:
        name, whole = saved(tmp_path / "model", kind), tiny_lm(kind)
        places = dict.fromkeys(_parts(whole.model), "cpu")
        for part in places:
            if ".1" in part:
                places[part] = "disk"
        options = {"device_map": places, "offload_folder": str(tmp_path / "away")}
        lm = FrozenLM.load(name, load=options)
        assert any(weight.is_meta for weight in lm.model.parameters())
        assert lm.device == torch.device("cpu")
        assert lm.dtype_reason == "it is spread over cpu, disk: scored as loaded"
        assert lm.fingerprint.weights == whole.fingerprint.weights
        assert lm.n_parameters == whole.n_parameters
        tail = () if lm.mask_id is None else (lm.mask_id,)
        queries = [Query((5, 6), tail, ((7,), (8,))), Query((5,), (6, *tail), ((7,), (8,)))]
        for prompts in ([TokenPrompt((9, 10))], [SoftPrompt(whole.embeddings()[[9, 10]])]):
            torch.testing.assert_close(
                lm.score(prompts, queries), whole.score(prompts, queries), rtol=0, atol=1e-4
            )
        soft = [SoftPrompt(whole.embeddings()[[9, 10]])]
        mine, theirs = (
            one.score_with_grad(soft, queries, lambda ll, _: ll.sum(-1))[1] for one in (lm, whole)
        )
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def _parts(model: torch.nn.Module) -> list[str]:
    """What a device map names: layers, and whatever is in none."""
    names = [name for name, _ in model.named_modules()]
    layers = [name for name in names if name.rpartition(".")[2].isdigit()]
    tops = [one for one in layers if not any(one.startswith(f"{other}.") for other in layers)]
    leaves = [name for name, module in model.named_modules() if name and not [*module.children()]]
    leaves = ["cls" if name.startswith("cls.") else name for name in leaves]
    return tops + [name for name in leaves if not name.startswith(tuple(f"{top}." for top in tops))]
