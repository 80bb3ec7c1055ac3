"""Quantised weights are scored as they were loaded, counted and told apart."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from quantised import with_layers, with_tensors
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from rlprompt.agents.random_search import RandomSearch
from rlprompt.check import check_task
from rlprompt.models.lm import FrozenLM
from rlprompt.models.noise import Noise
from rlprompt.models.precision import settle
from rlprompt.models.weights import n_parameters, quantisation
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.search.run import search
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Query

WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
QUERY, PROMPT = Query((5, 6, 7), (8,), ((9,), (10, 11))), TokenPrompt((12, 13))
# A row of its own, as 8 bits of bitsandbytes see all that is computed together.
ONE = Query((5, 6, 7), (8,), ((9,),))
ONE_MORE = Query((5, 6), (8,), ((9,), (7,)))
CPU = torch.device("cpu")
Make = Callable[[PreTrainedModel], PreTrainedModel]
by_hand = pytest.mark.parametrize("make", [with_layers, with_tensors])


def dense() -> PreTrainedModel:
    return tiny_model("llama", **WIDE)


def plain(model: Any) -> Tensor:
    """What transformers alone makes of the row."""
    with torch.no_grad():
        at = model(torch.tensor([[5, 6, 7, 12, 13, 8, 10]])).logits[0].float().log_softmax(-1)
    return torch.stack([at[-2, 9], at[-2, 10] + at[-1, 11]])


def plain_first(model: Any) -> float:
    """The same for the first candidate, in a row of its own."""
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6, 7, 12, 13, 8]])).logits
    return float(logits[0, -1].float().log_softmax(-1)[9])


def never(model: PreTrainedModel) -> Noise:
    pytest.fail("measured for nothing")


class TestByHand:
    @by_hand
    def test_scores_are_those_of_a_plain_forward_pass(self, make: Make) -> None:
        model = make(dense())
        expected = plain(model)
        assert float((expected - plain(dense())).abs().max()) > 1e-3
        lm = FrozenLM(model, tiny_tokenizer())
        assert lm.obstacle is None
        torch.testing.assert_close(lm.score([PROMPT], [QUERY])[0, 0], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(plain(model), expected, rtol=0, atol=0)

    @by_hand
    def test_numbers_are_counted_and_not_bytes(self, make: Make) -> None:
        assert n_parameters(make(dense())) == n_parameters(dense()) == dense().num_parameters()

    @by_hand
    def test_the_fingerprint_is_of_their_content(self, make: Make) -> None:
        model, again = make(dense()), make(dense())
        marks = [FrozenLM(one, tiny_tokenizer()).fingerprint for one in (model, again)]
        assert marks[0] == marks[1]
        assert marks[0].quantisation == quantisation(model) != ""
        layer: Any = again.get_submodule("model.layers.1.mlp.up_proj")
        holder: Any = layer if make is with_layers else layer.weight
        holder.packed[0, 0] += 1
        assert FrozenLM(again, tiny_tokenizer()).fingerprint.digest != marks[0].digest

    @by_hand
    def test_auto_leaves_them_as_they_are(self, make: Make) -> None:
        model, reason = settle(make(dense()), CPU, "auto", never)
        assert reason == f"its weights are quantised ({quantisation(model)}): scored as loaded"
        torch.testing.assert_close(plain(model), plain(make(dense())), rtol=0, atol=0)

    @by_hand
    def test_another_dtype_is_refused_in_a_sentence(self, make: Make) -> None:
        with pytest.raises(
            ValueError, match=r"computes in float32 whatever .* leave out dtype bfl"
        ):
            settle(make(dense()), CPU, "bfloat16", never)
        halves = make(torch.nn.Module.float(torch.nn.Module.bfloat16(dense())))
        embeddings: Any = halves.get_input_embeddings()
        embeddings.to(torch.bfloat16)
        with pytest.raises(ValueError, match=r"a forward pass .* fails in dtype bfloat16 on cpu: "):
            settle(halves, CPU, "bfloat16", never)

    def test_dense_weights_are_not_quantised(self) -> None:
        assert quantisation(dense()) == ""
        assert quantisation(torch.nn.Module.bfloat16(dense())) == ""


def test_a_layer_that_carries_no_gradient_is_named() -> None:
    model = with_layers(dense())
    for layer in model.base_model.layers:  # type: ignore[union-attr]
        layer.self_attn.register_forward_hook(lambda _, given, out: (out[0].detach(), *out[1:]))
    lm = FrozenLM(model, tiny_tokenizer(), "held")
    soft = [SoftPrompt(lm.embeddings()[[12, 13]])]
    with pytest.raises(ValueError, match="the gradient of held is zero everywhere: layers quant"):
        lm.score_with_grad(soft, [QUERY], lambda ll, _: ll.sum(-1))
    said = "its weights, quantised by int8, pass none on"
    assert lm.gradient_obstacle == said
    rows = [{"text": f"it was {i}", "label": "ab"[i % 2]} for i in range(12)]
    task = ClassificationTask.from_file(
        rows, template="{text} {prompt}", label_words={"a": "good", "b": "bad"}, shots=2
    )
    with pytest.raises(ValueError, match=rf"^held gives no gradient, which .* \({said}\); give"):
        search(task, lm, RandomSearch(), 100, tokens="gradient")


@by_hand
def test_where_weights_pass_a_gradient_on_nothing_is_in_its_way(make: Make) -> None:
    assert FrozenLM(make(dense()), tiny_tokenizer()).gradient_obstacle is None
    assert FrozenLM(dense(), tiny_tokenizer()).gradient_obstacle is None


def test_a_gradient_that_layers_carry_in_part_is_a_warning_about_them() -> None:
    model = with_layers(dense())
    for layer in model.base_model.layers:  # type: ignore[union-attr]
        layer.mlp.register_forward_hook(lambda _, given, out: out.detach())
    rows = [{"text": f"it was {i}", "label": "ab"[i % 2]} for i in range(12)]
    task = ClassificationTask.from_file(
        rows, template="{text} {prompt}", label_words={"a": "good", "b": "bad"}, shots=2
    )
    found = check_task(task, FrozenLM(model, tiny_tokenizer()), every_example=False)
    (gradient,) = (one for one in found.problems if one.name == "gradient")
    assert gradient.status == "warn"
    assert "The weights are quantised (int8), and layers of that kind may carry" in gradient.text


def test_a_layer_that_a_library_has_wrapped_is_left_so() -> None:
    model = dense()
    wrapped: Any = model.get_submodule("model.layers.0.mlp.gate_proj")
    original = wrapped.forward

    def forward(x: Tensor) -> Tensor:
        out: Tensor = original(x.round(decimals=1))
        return out

    for layer in model.base_model.layers:  # type: ignore[union-attr]
        layer.mlp.forward = layer.mlp.forward
    wrapped.forward = forward
    expected = plain(model)
    lm = FrozenLM(model, tiny_tokenizer())
    assert lm._engine.plain.kernels.packed_bytes > 0
    torch.testing.assert_close(lm.score([PROMPT], [QUERY])[0, 0], expected, rtol=0, atol=1e-4)
    assert wrapped.forward is forward
    torch.testing.assert_close(plain(model), expected, rtol=0, atol=0)


def _bitsandbytes(bits: int) -> Any:
    return {f"load_in_{bits}bit": True}


def _torchao(name: str) -> Any:
    made = getattr(importlib.import_module("torchao.quantization"), name)()
    return transformers.TorchAoConfig(made)


# What each is made from, its package, and whether rows are computed independently of each other.
LIBRARIES: dict[str, tuple[Callable[[], Any], str, bool]] = {
    "bnb-4": (lambda: _bitsandbytes(4), "bitsandbytes", True),
    "bnb-8": (lambda: _bitsandbytes(8), "bitsandbytes", False),
    "int8": (lambda: _torchao("Int8WeightOnlyConfig"), "torchao", True),
    "float8": (lambda: _torchao("Float8WeightOnlyConfig"), "torchao", True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dense")
    dense().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.mark.filterwarnings("ignore")
class TestLibraries:
    @pytest.mark.parametrize("kind", LIBRARIES)
    def test_are_scored_as_loaded(self, kind: str, folder: Path, tmp_path: Path) -> None:
        config, package, independent = LIBRARIES[kind]
        pytest.importorskip(package, reason=f"{package} is not installed")
        lm = FrozenLM.load(str(folder), load={"quantization_config": config()})
        expected = plain_first(lm.model)
        assert (lm.obstacle is None) == independent
        scored = lm.score([PROMPT], [ONE])
        others = [PROMPT, TokenPrompt((14,)), TokenPrompt((15, 16))]
        together = lm.score(others, [QUERY, ONE_MORE])[0, 1, 0]
        assert float(together) == pytest.approx(
            float(lm.score([PROMPT], [ONE_MORE])[0, 0, 0]), abs=1e-4
        )
        assert float(scored) == pytest.approx(expected, abs=1e-4)
        assert abs(expected - plain_first(dense())) > 1e-3
        assert lm.n_parameters == dense().num_parameters()
        assert lm.dtype_reason.startswith(f"its weights are quantised ({package})")
        mark = lm.fingerprint
        assert mark.quantisation.startswith(package)
        assert "quantization_config" in mark.options
        lm.model.save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        again = FrozenLM.load(str(tmp_path), dtype=mark.dtype)
        assert again.fingerprint.weights == mark.weights
        torch.testing.assert_close(again.score([PROMPT], [ONE]), scored, rtol=0, atol=1e-4)

    def test_gradients_go_through_4_bits(self, folder: Path) -> None:
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
        lm = FrozenLM.load(str(folder), load={"quantization_config": _bitsandbytes(4)})
        start = lm.embeddings()[[12, 13]]
        _, grad = lm.score_with_grad([SoftPrompt(start)], [QUERY], lambda ll, _: ll.sum(-1))
        step = 1e-3 * grad[0] / grad[0].norm()
        ends = [SoftPrompt(start + sign * step.numpy()) for sign in (1, -1)]
        up, down = (lm.score([one], [QUERY]).sum() for one in ends)
        assert float(up - down) / 2e-3 == pytest.approx(float(grad[0].norm()), rel=0.05)

    def test_compressed_tensors_are_unpacked_once(self, folder: Path, tmp_path: Path) -> None:
        pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
        _compress(folder, tmp_path)
        lm = FrozenLM.load(str(tmp_path))
        before = lm.hash_weights()
        torch.testing.assert_close(
            lm.score([PROMPT], [QUERY])[0, 0], plain(lm.model), rtol=0, atol=1e-4
        )
        assert lm.hash_weights() == before
        soft = [SoftPrompt(lm.embeddings()[[12, 13]])]
        with pytest.raises(ValueError, match="layers quantised by compressed-tensors carry none"):
            lm.score_with_grad(soft, [QUERY], lambda ll, _: ll.sum(-1))
        assert lm.n_parameters == dense().num_parameters()


def _compress(source: Path, target: Path) -> None:
    """A float8 checkpoint of compressed-tensors."""
    tensors: dict[str, Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        tensors[name] = weight
        if name.endswith("proj.weight"):
            scale = weight.abs().amax(1, keepdim=True) / 448
            tensors[name] = (weight / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale"] = scale
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    tiny_tokenizer().save_pretrained(target)
    number = {"num_bits": 8, "type": "float", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": number | {"strategy": "channel", "dynamic": False},
        "input_activations": number | {"strategy": "token", "dynamic": True},
    }
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }
    (target / "config.json").write_text(json.dumps(config))
