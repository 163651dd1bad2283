"""A judge behind an endpoint: what it is asked, what counts as a score, and endpoints that are none. The server is a fake."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.evaluation.judge import judge, prefer


@pytest.fixture
def endpoint():
    """A server that replies with what stands in `replies`, one after the other, and keeps what it was asked."""
    replies, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers.get("Authorization"), body))
            reply = replies.pop(0)
            code, data = reply if isinstance(reply, tuple) else (200, reply)
            if isinstance(data, str):
                data = json.dumps({"choices": [{"message": {"role": "assistant", "content": data}}]}).encode()
            self.send_response(code)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", replies, asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_scores_and_what_is_asked(endpoint):
    url, replies, asked = endpoint
    replies += ["85", " 0\n"]
    seen = []
    judged = judge(["q1", "q2"], ["e1", "e2"], ["a1", "a2"], url=url + "/", model="m", key="secret", report=seen.append)
    assert judged.scores == [85, 0]
    assert (judged.mean, judged.unparsed, seen) == (42.5, 0, [1, 2])
    assert judged.to_dict() == {"mean": 42.5, "unparsed": 0, "scores": [85, 0]}
    path, authorization, body = asked[0]
    assert (path, authorization) == ("/v1/chat/completions", "Bearer secret")
    assert (body["model"], body["temperature"]) == ("m", 0)
    text = body["messages"][0]["content"]
    assert all(part in text for part in ("q1", "e1", "a1"))
    assert not set(re.findall(r"\d+", text.replace("q1", "").replace("e1", "").replace("a1", ""))) - {"0", "100"}


@pytest.mark.parametrize("reply", ["about 85", "85/100", "101", "-5", "85.5", "", "<think>85</think>", "8 5"])
def test_what_is_no_number_alone_is_no_score(endpoint, reply):
    url, replies, asked = endpoint
    replies += [reply, reply, reply, "70"]
    judged = judge(["q", "q"], ["e", "e"], ["a", "a"], url=url, model="m", key="")
    assert judged.scores == [None, 70]  # asked twice each
    assert (judged.unparsed, judged.mean) == (1, 70)
    assert [body["seed"] for _, _, body in asked] == [0, 1, 0, 1]
    assert asked[0][1] is None


def test_no_score_at_all(endpoint):
    url, replies, _ = endpoint
    replies += ["no", "no"]
    assert judge(["q"], ["e"], ["a"], url=url, model="m").mean is None


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, b'{"error": "no key"}'), "answers 401 .*no key"),
        ((200, b"not json"), "the reply is no chat completion"),
        ((200, b'{"choices": []}'), "the reply is no chat completion"),
        ((200, b"[" * 100_000), "the reply is no chat completion"),
    ],
)
def test_an_endpoint_that_is_none(endpoint, reply, message):
    url, replies, _ = endpoint
    replies.append(reply)
    with pytest.raises(DataError, match=message):
        judge(["q"], ["e"], ["a"], url=url, model="m")


def test_nobody_there():
    with pytest.raises(DataError, match="cannot be reached"):
        judge(["q"], ["e"], ["a"], url="http://127.0.0.1:9/v1", model="m", timeout=2)
    with pytest.raises(ConfigError, match="must begin with http"):
        judge(["q"], ["e"], ["a"], url="localhost:8080", model="m")


def test_which_of_two_is_better_is_asked_in_both_orders(endpoint):
    url, replies, asked = endpoint
    replies += ["A", "B", " B\n", "A", "A", "A", "equal", "equal", "equal", "B"]
    replies += ["A", "the first", "A.", "neither", "A and B"]
    seen = []
    n = 7
    names = ([f"{name}{i}" for i in range(n)] for name in ("question", "one", "other"))
    found = prefer(*names, url=url, model="m", report=seen.append)
    assert found == [1.0, 0.0, 0.5, 0.5, 1.0, None, None]
    assert seen == [*range(1, n + 1)]
    assert not replies
    texts = [body["messages"][0]["content"] for _, _, body in asked]
    assert texts[0].index("question0") < texts[0].index("one0") < texts[0].index("other0")
    assert texts[1].index("other0") < texts[1].index("one0")
    assert [body["seed"] for _, _, body in asked[:2]] == [0, 0]


def test_a_pair_needs_an_endpoint(endpoint):
    with pytest.raises(ConfigError, match="must begin with http"):
        prefer(["q"], ["a"], ["b"], url="localhost", model="m")
