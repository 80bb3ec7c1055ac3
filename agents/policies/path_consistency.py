"""How soft Q-values are learnt from whole prompts, which earn their reward at the end.

Of the best policy that is as random as it may be, every path satisfies log pi(a_t | s_t) =
V(s_t+1) - V(s_t), where the reward stands for the value behind the end (path consistency, Nachum et
al. 2017, arXiv 1702.08892). What is missing to that is made small, by one step at a time and by all
that is left of a path: the soft Q-learning of Guo et al. (2021, arXiv 2106.07704), in the form of
RLPrompt's released code (`soft_q_loss_with_sparse_rewards_2` is `single_step` here, `_3` is
`multi_step`, and it takes their mean): squared, summed over the steps of a path, averaged over
paths, and with values of a target network, through which no gradient flows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence

from rlprompt.agents.policies.soft_q_policy import Path, SoftQPolicy
from rlprompt.agents.shared.ranges import check_ranges, check_share
from rlprompt.types import Floats

# Norm that gradients are cut to, the released code's.
MOST_NORM = 5.0


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """How fast is learnt, and from what; `SoftQ` says what each setting is."""

    top_k: int
    scale: float
    learning_rate: float
    target_rate: float
    steps: int
    replay: bool
    relative: bool
    greedy_every: int

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"top_k": 1, "steps": 1, "greedy_every": 1}, ("scale", "learning_rate"))
        check_share(self, "target_rate")


class Learner:
    """Improves a policy, by Adam as the released code does (`get_default_train_op`).

    Args:
        policy: Its network is trained.
        settings: How fast, and from what.

    Attributes:
        target: The target network, equal to the policy's at first.
    """

    def __init__(self, policy: SoftQPolicy, settings: Hyperparameters) -> None:
        self._policy, self._settings = policy, settings
        self.target: nn.Module = copy.deepcopy(policy.network).requires_grad_(False)
        self._adam = torch.optim.Adam(policy.network.parameters(), lr=settings.learning_rate)

    def step(self, paths: Sequence[Path], rewards: Floats) -> None:
        """Have the target follow, and take a step; arguments as for `loss`."""
        network = self._policy.network
        pairs = zip(self.target.parameters(), network.parameters(), strict=True)
        for slow, quick in pairs:
            slow.lerp_(quick.detach(), self._settings.target_rate)
        self._adam.zero_grad()
        torch.autograd.backward(self.loss(paths, rewards))
        clip_grad_norm_(network.parameters(), MOST_NORM)
        self._adam.step()

    def loss(self, paths: Sequence[Path], rewards: Floats) -> Tensor:
        """What is made small.

        Args:
            paths: (K,) of them.
            rewards: (K,) of each, as the policy is to see them.
        """
        policy = self._policy
        hidden, actions = (
            pad_sequence(part, batch_first=True).to(policy.device)
            for part in ([path.hidden for path in paths], [path.actions for path in paths])
        )
        counts = torch.tensor([len(path.actions) for path in paths], device=policy.device)
        values = policy.logits(self.target, hidden).logsumexp(-1)
        log_pi = policy.logits(policy.network, hidden).log_softmax(-1)
        advantages = log_pi.gather(-1, actions[..., None])[..., 0]
        tokens, stops = (one[: hidden.shape[1]] for one in (policy.token_prior, policy.stop_prior))
        if self._settings.relative:
            advantages = advantages - torch.where(actions == policy.stop, stops, tokens)
        else:  # V as of a sum over tokens that each count once
            values = values - tokens
        earned = torch.from_numpy(rewards).to(values)
        return consistency_loss(advantages, values, earned, counts)


def consistency_loss(advantages: Tensor, values: Tensor, rewards: Tensor, counts: Tensor) -> Tensor:
    """The mean of `single_step` and `multi_step`.

    Args:
        advantages: (K, T) log pi of the action of each step, or log pi / pi_0; any behind a path's
            end.
        values: (K, T) V of the target network before each step.
        rewards: (K,) of each path, as the policy is to see them.
        counts: (K,) steps of each path, 1 to T.
    """
    given = advantages, values, rewards, counts
    return (single_step(*given) + multi_step(*given)) / 2


def single_step(advantages: Tensor, values: Tensor, rewards: Tensor, counts: Tensor) -> Tensor:
    """How far log pi of each action is from the rise of the value; arguments as above.

    >>> one_path = torch.tensor([[-1.0, -2.0]]), torch.tensor([[3.0, 1.0]])
    >>> single_step(*one_path, torch.tensor([4.0]), torch.tensor([2])).item()  # 1^2 + (-5)^2
    26.0
    """
    steps = torch.arange(1, values.shape[1] + 1, device=values.device)
    following = torch.where(steps == counts[:, None], rewards[:, None], values.roll(-1, 1))
    return _summed(advantages - (following - values), counts)


def multi_step(advantages: Tensor, values: Tensor, rewards: Tensor, counts: Tensor) -> Tensor:
    """How far log pi of all that is left is from what it still earns; arguments as above.

    >>> one_path = torch.tensor([[-1.0, -2.0]]), torch.tensor([[3.0, 1.0]])
    >>> multi_step(*one_path, torch.tensor([4.0]), torch.tensor([2])).item()  # (-4)^2 + (-5)^2
    41.0
    """
    left = _masked(advantages, counts).flip(1).cumsum(1).flip(1)
    return _summed(left - (rewards[:, None] - values), counts)


def _summed(errors: Tensor, counts: Tensor) -> Tensor:
    return _masked(errors, counts).square().sum(1).mean()


def _masked(numbers: Tensor, counts: Tensor) -> Tensor:
    """Numbers (K, T) with zeros behind the end of each path."""
    steps = torch.arange(numbers.shape[1], device=numbers.device)
    return numbers.masked_fill(steps >= counts[:, None], 0)
