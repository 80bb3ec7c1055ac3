"""Adapters of PEFT: those inside a model are scored with it, others are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Query

peft: Any = pytest.importorskip("peft")
# Of PEFT itself, which asks transformers in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")

QUERY = Query((5, 6, 7), (8,), ((9,), (11, 13)))
PROMPT = TokenPrompt((20, 21))


def adapted(config: Any) -> Any:
    torch.manual_seed(0)
    return peft.get_peft_model(tiny_model("llama"), config).eval()


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_one_inside_the_model_is_scored_as_it_answers(name: str) -> None:
    config = {
        "lora": peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False),
        "ia3": peft.IA3Config(
            target_modules=["q_proj"], feedforward_modules=[], init_ia3_weights=False
        ),
    }[name]
    config.task_type = "CAUSAL_LM"
    model = adapted(config)
    lm = FrozenLM(model, tiny_tokenizer(), name)
    assert lm.obstacle is None
    text = [*QUERY.head_ids, *PROMPT.ids, *QUERY.tail_ids]
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([[*text, 11]])).logits[0].log_softmax(-1)
    end = len(text) - 1
    expected = torch.stack([logs[end, 9], logs[end, 11] + logs[end + 1, 13]])
    torch.testing.assert_close(lm.score([PROMPT], [QUERY])[0, 0], expected, rtol=0, atol=1e-4)
    hidden = lm.last_hidden([tuple(text)])  # what PPO asks for
    torch.testing.assert_close(lm.next_logits(hidden)[0].log_softmax(-1), logs[end])
    plain = FrozenLM(tiny_model("llama"), tiny_tokenizer(), name)
    assert lm.fingerprint.weights != plain.fingerprint.weights
    assert float((plain.score([PROMPT], [QUERY])[0, 0] - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_virtual_tokens_before_every_text_are_refused(name: str) -> None:
    config = getattr(peft, name)(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(
        ValueError, match=r"^tuned cannot be scored: its adapter \(P\w+\) puts virt"
    ):
        FrozenLM(adapted(config), tiny_tokenizer(), "tuned")


def test_one_that_changes_the_forward_pass_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    forward = model.forward

    def louder(**given: Any) -> Any:
        output = forward(**given)
        output.logits = 2 * output.logits
        return output

    monkeypatch.setattr(model, "forward", louder)
    with pytest.raises(
        ValueError, match=r"its adapter \(LORA\) does more than change the model's w"
    ):
        FrozenLM(model, tiny_tokenizer(), "louder")
