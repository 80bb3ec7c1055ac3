from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TinyKind, tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from rlprompt.check import check_task
from rlprompt.models import precision as noise
from rlprompt.models.lm import FrozenLM
from rlprompt.models.noise import Noise, NotFiniteError
from rlprompt.models.precision import choose_dtype, measure_noise
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Query

CPU = torch.device("cpu")
LOUD = Noise(alone=0.1, shuffled=0.0, batches=0.0, plain=0.2, spread=1.0)
SILENT = Noise(alone=0.001, shuffled=0.0, batches=0.0, plain=0.002, spread=1.0)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where 16 bits are three times as fast."""
    monkeypatch.setattr(noise, "_speed_ratio", lambda *_: 3.0)


def never(model: PreTrainedModel) -> Noise:
    pytest.fail("measured for nothing")


class TestAutoDtype:
    @pytest.mark.usefixtures("fast")
    def test_is_16_bits_only_where_noise_cannot_decide(self) -> None:
        loud, why = choose_dtype(tiny_model(), CPU, lambda _: LOUD)
        assert loud.dtype == torch.float32
        assert "bfloat16 is 3.0 times as fast, its noise is 0.2 nats where two prompts" in why
        silent, _ = choose_dtype(tiny_model(), CPU, lambda _: SILENT)
        assert silent.dtype == torch.bfloat16

    def test_is_float32_where_16_bits_are_no_faster(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(noise, "_speed_ratio", lambda *_: 1.1)
        model, why = choose_dtype(tiny_model(), CPU, never)
        assert (model.dtype, why) == (torch.float32, "bfloat16 is 1.1 times as fast only")

    @pytest.mark.usefixtures("fast")
    @pytest.mark.parametrize(
        ("measured", "expected"), [(LOUD, torch.float32), (SILENT, torch.float16)]
    )
    def test_takes_a_16_bit_checkpoint_as_it_is_or_exactly_widened(
        self, measured: Noise, expected: torch.dtype
    ) -> None:
        checkpoint = torch.nn.Module.half(tiny_model())
        before = [parameter.clone() for parameter in checkpoint.parameters()]
        model, _ = choose_dtype(checkpoint, CPU, lambda _: measured)
        assert model.dtype == expected
        assert all(map(torch.equal, (p.half() for p in model.parameters()), before))

    def test_warns_where_float32_does_not_fit(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(noise, "free_bytes", lambda _: 1000)
        model, why = choose_dtype(torch.nn.Module.bfloat16(tiny_model()), CPU, never)
        assert model.dtype == torch.bfloat16
        assert "float32 needs" in why
        assert any(record.levelno == logging.WARNING for record in caplog.records)

    @pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "t5"])
    def test_is_measured_on_an_inner_product_however_small_the_vocabulary(
        self, kind: TinyKind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[tuple[int, ...]] = []
        seconds = noise._seconds

        def watched(rows: Tensor, weight: Tensor) -> float:
            tried.append(tuple(weight.shape))
            return seconds(rows, weight)

        monkeypatch.setattr(noise, "_seconds", watched)
        model, _ = choose_dtype(tiny_model(kind, vocab_size=16), CPU, lambda _: LOUD)
        assert model.dtype == torch.float32
        largest = (32, 128) if kind == "gpt2" else (48, 32)  # whose weights stand on their heads
        assert set(tried) == {largest}

    def test_is_float32_where_there_is_no_inner_product(self) -> None:
        model = tiny_model(vocab_size=16, num_hidden_layers=0)
        assert choose_dtype(model, CPU, never)[0].dtype == torch.float32

    @pytest.mark.usefixtures("fast")
    def test_leaves_the_rotary_frequencies_alone(self) -> None:
        model, _ = choose_dtype(tiny_model(), CPU, lambda _: SILENT)
        assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}


def loud(kind: TinyKind) -> PreTrainedModel:
    """A model whose numbers grow beyond what float16 holds, and not beyond the others."""
    model = tiny_model(kind)
    for name, parameter in model.named_parameters():
        if name.endswith(("up_proj.weight", "gate_proj.weight")):
            parameter.data *= 1e4
        elif "decoder.final_layer_norm" in name:  # in its layers T5 clamps what overflows
            parameter.data *= 1e6
    return model


class TestOverflow:
    @pytest.mark.parametrize("kind", ["llama", "t5"])
    def test_is_named_with_the_dtype_to_take(self, kind: TinyKind, tmp_path: Path) -> None:
        loud(kind).save_pretrained(tmp_path)
        tiny_tokenizer(kind).save_pretrained(tmp_path)
        with pytest.raises(NotFiniteError, match=r"in float16; .* with dtype bfloat16 or float32"):
            FrozenLM.load(str(tmp_path), dtype="float16").own_noise  # noqa: B018

    @pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
    def test_there_is_none_in_that_dtype(self, dtype: str, tmp_path: Path) -> None:
        loud("llama").save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        assert np.isfinite(FrozenLM.load(str(tmp_path), dtype=dtype).own_noise.largest)

    @pytest.mark.usefixtures("fast")
    @pytest.mark.parametrize("kind", ["llama", "t5"])
    def test_is_never_chosen(self, kind: TinyKind) -> None:
        def noise_of(model: PreTrainedModel) -> Noise:
            return FrozenLM(model, tiny_tokenizer(kind)).own_noise

        model, why = choose_dtype(torch.nn.Module.half(loud(kind)), CPU, noise_of)
        assert (model.dtype, why) == (
            torch.float32,
            "float16 overflows: it gives no finite numbers",
        )

    def test_is_not_chosen_where_float32_does_not_fit(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(noise, "free_bytes", lambda _: 1000)

        def noise_of(model: PreTrainedModel) -> Noise:
            return FrozenLM(model, tiny_tokenizer()).own_noise

        model, why = choose_dtype(torch.nn.Module.half(loud("llama")), CPU, noise_of)
        assert model.dtype == torch.bfloat16
        assert why.endswith("more than is free, and float16 overflows")
        quiet, _ = choose_dtype(torch.nn.Module.half(tiny_model()), CPU, noise_of)
        assert quiet.dtype == torch.float16

    def test_of_some_texts_alone_is_a_finding_and_ends_no_search_late(self) -> None:
        lm = FrozenLM(tiny_model(), tiny_tokenizer(), "holed")
        (film,) = lm.encode(" film")
        vector = torch.tensor(lm.embeddings()[film])

        def breaks(module: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            met = (given[0] == vector).all(-1, keepdim=True)
            return (given[0].masked_fill(met, torch.nan), *given[1:])

        lm.model.get_submodule("model.layers.0").register_forward_pre_hook(breaks)
        rows = [{"text": f"a film {i}", "label": "ab"[i % 2]} for i in range(12)]
        task = ClassificationTask.from_file(
            rows, template="{text} {prompt}", label_words={"a": "good", "b": "bad"}, shots=2
        )
        (problem, *_) = check_task(task, lm).problems
        assert (problem.name, problem.status) == ("finite", "fail")
        assert "log-likelihoods of holed are no finite number, such as nan, in fl" in problem.text
        soft = [SoftPrompt(np.zeros((2, lm.hidden_size), dtype=np.float32))]
        with pytest.raises(NotFiniteError, match="holed"):
            task.rewards_with_grad(lm, soft, task.splits.train)


def test_the_difference_of_each_way_is_found() -> None:
    prompts = [TokenPrompt((i,)) for i in range(3)]
    queries = [Query((5,), (), ((6,),)) for _ in range(2)]

    def score(prompts: Sequence[Prompt], queries: Sequence[Query]) -> Tensor:
        levels = [10.0 * prompt.ids[0] for prompt in prompts if isinstance(prompt, TokenPrompt)]
        base = torch.tensor(levels)[:, None, None].expand(-1, len(queries), 1)
        return base + (0.25 if len(prompts) == 1 else 0.0)

    measured = measure_noise(
        score,
        lambda p, q: score(p, q) + 0.5,
        lambda p, q: score(p, q) - 1.0,
        prompts,
        queries,
    )
    assert measured == Noise(alone=0.25, shuffled=0.0, batches=0.5, plain=1.0, spread=10.0)
