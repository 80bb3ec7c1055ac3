"""What the client does with a server that fails, and with a person's mistakes."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from scripted_server import KEY_ENV, Script, drop, half, hang, says, status

from rlprompt.models.served import api
from rlprompt.models.served.access import Access, ServerError
from rlprompt.models.served.api import Api, NotThereError, retry_after

SECRET = "sk-very-secret-0123"
ASKED = {"model": "tiny", "prompt": "it was", "max_tokens": 1}


def client(script: Script, **settings: Any) -> Api:
    return Api(Access(script.url, **{"timeout": 5.0, "key_env": KEY_ENV, **settings}))


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (status(500, "out of memory"), "500 out of memory"),
        (status(503), "503 not now"),
        (drop, "no connection"),
        (half, "no connection"),
        (says(b'{"choices": [{"text": "a'), "half a JSON object"),
        (says(b"\xff\xfe"), "half a JSON object"),
        (says([1]), "half a JSON object"),
    ],
)
def test_what_may_pass_is_asked_again_and_ends_in_one_sentence(
    server: Script, fault: Any, what: str
) -> None:
    server.faults = [fault, fault]
    assert "choices" in client(server).post("completions", ASKED)
    assert len(server.log) == 3
    server.faults = [fault] * 3
    with pytest.raises(ServerError, match=f"no answer in 3 attempts: .*{what}.* is kept$"):
        client(server, attempts=3).post("completions", ASKED)
    assert len(server.log) == 6


def test_a_server_that_hangs_is_left_after_the_timeout(server: Script) -> None:
    server.faults = [hang(0.3)]
    with pytest.raises(ServerError, match=r"within 0\.05 s"):
        client(server, timeout=0.05, attempts=1).post("completions", ASKED)


def test_nobody_there_is_told(server: Script) -> None:
    there = server.url.rpartition(":")[0] + ":9/v1"
    with pytest.raises(ServerError, match="no connection to it"):
        Api(Access(there, attempts=2)).get("models")


def test_the_server_says_how_long_to_wait(server: Script) -> None:
    server.faults = [status(429, Retry_After="0.2")]
    began = time.perf_counter()
    client(server).post("completions", ASKED)
    assert time.perf_counter() - began >= 0.2


def test_too_long_a_wait_ends_at_once(server: Script) -> None:
    server.faults = [status(429, Retry_After="86400")]
    with pytest.raises(ServerError, match="429 not now, and asks to wait 86,400 s"):
        client(server).post("completions", ASKED)
    assert len(server.log) == 1


def test_retry_after_may_be_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    seconds = retry_after({"retry-after": soon})
    assert seconds is not None
    assert 28 < seconds <= 30


def test_waits_double_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "FIRST_WAIT", 0.5)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    assert [api.backoff(i) for i in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (400, "maximum context length is 256 tokens", NotThereError),
        (404, "no such model", NotThereError),
        (500, "Only no echo is supported", NotThereError),
        (402, "no credit left", ServerError),
        (409, "conflict", ServerError),
        (307, "moved", ServerError),
    ],
)
def test_what_no_attempt_mends_is_told_at_once(
    server: Script, code: int, message: str, kind: type[ServerError]
) -> None:
    server.faults = [status(code, message)]
    with pytest.raises(kind, match=f"{code} {message}"):
        client(server).post("completions", ASKED)
    assert len(server.log) == 1


def test_a_quota_that_is_used_up_is_no_reason_to_wait(server: Script) -> None:
    used_up = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    server.faults = [lambda handler: handler.say(429, used_up)]
    with pytest.raises(ServerError, match="wants to be paid: 429 You exceeded your quota"):
        client(server).post("completions", ASKED)
    assert len(server.log) == 1


def test_a_wrong_key_is_not_repeated(server: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, SECRET)
    server.key = "another"
    with pytest.raises(ServerError, match=f"refuses the key in .* {KEY_ENV}") as caught:
        client(server).get("models")
    assert SECRET not in repr(caught.getrepr(style="long", chain=True))
    server.key, server.faults = SECRET, [status(500, f"for Bearer {SECRET}")] * 9
    with pytest.raises(ServerError, match=r"500 for Bearer \(the key\)"):
        client(server, attempts=2).post("completions", ASKED)


def test_a_missing_key_is_asked_for_by_the_name_of_its_variable(
    server: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_ENV, raising=False)
    server.key = SECRET
    with pytest.raises(ServerError, match=f"wants a key .401., and .* {KEY_ENV} is not set"):
        client(server).get("models")
    monkeypatch.setenv(KEY_ENV, f" {SECRET}\n")
    assert client(server).get("models")["data"][0]["id"] == "tiny"


def test_a_key_that_is_none_is_not_repeated(
    server: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, "very secret")
    with pytest.raises(ServerError, match=KEY_ENV) as caught:
        client(server).get("models")
    assert "very" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://me:hunter2@host/v1", "before the @"),
        ("http://hunter2@host/v1", "before the @"),
        ("127.0.0.1:8000/v1", "such as http"),
        ("ftp://host/v1", "such as http"),
        ("http:///v1", "such as http"),
        ("http://host:port/v1", "is no address"),
        ("http://host/v1?key=hunter2", "has a . or a #"),
    ],
)
def test_an_address_that_is_none_is_refused_and_no_secret_is_repeated(
    url: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        Access(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"concurrency": 0}, {"attempts": 0}, {"timeout": 0.0}, {"key_env": SECRET}, {"key_env": ""}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"served model takes|key_env is the name") as caught:
        Access("http://host/v1", **settings)
    assert SECRET not in str(caught.value)


def test_no_more_requests_at_a_time_than_allowed(server: Script) -> None:
    server.delay = 0.005
    found = dict[int, str]()
    shared = client(server, concurrency=3)

    def ask(i: int) -> dict[str, Any]:
        return shared.post("completions", {**ASKED, "prompt": f"film {i}"})

    shared.each(ask, range(12), lambda i, answer: found.update({i: answer["model"]}))
    assert sorted(found) == list(range(12))
    assert 1 < server.busiest <= 3


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_was_under_way_is_kept_when_one_fails(server: Script, interrupted: bool) -> None:
    server.delay = 0.02
    shared, kept = client(server, concurrency=4), list[int]()

    def ask(i: int) -> dict[str, Any]:
        if i == 1 and not interrupted:
            raise ServerError("one fails")
        return shared.post("completions", {**ASKED, "prompt": f"film {i}"})

    def keep(i: int, answer: dict[str, Any]) -> None:
        if interrupted and not kept:
            kept.append(-1)
            raise KeyboardInterrupt
        kept.append(i)

    expected = KeyboardInterrupt if interrupted else ServerError
    with pytest.raises(expected):
        shared.each(ask, range(100), keep)
    assert len(kept) < 12
    sent = {int(json.loads(one)[1]["prompt"].split()[1]) for one in server.asked}
    assert sent == set(kept) - {-1}


def test_the_default_settings() -> None:
    usual = Access("http://host/v1/")
    assert (usual.concurrency, usual.attempts, usual.timeout) == (8, 6, 120.0)
    assert usual.key_env == "OPENAI_API_KEY"


def test_a_proxy_or_a_redirect_does_not_get_the_key() -> None:
    seen = list[str]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return httpx2.Response(302, headers={"Location": "http://elsewhere/v1/models"})

    with pytest.raises(ServerError, match="302"):
        Api(Access("http://host/v1"), httpx2.MockTransport(answer)).get("models")
    assert seen == ["http://host/v1/models"]
