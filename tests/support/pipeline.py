"""Dialogues with a reply pipeline: what was sent, what came, what reached whom.

A script has a line for each step::

    client: Parse (Parse) [Close] Bind Sync-
    server: 1 1 2 Z                            => 1 . [Close] 2 Z
    state: due skipping

On a client's line a request in (…) was slipped in by the proxy, one in […] never goes to the server; a minus
says that no answer is due to it. On a server's line the right side is what comes of the left: messages
forwarded, ``.`` for one that is skipped, […] for an answer that the proxy gives itself, and behind an error
``{Parse: Bind Execute}`` for the request that failed and those that the server drops. ``a/Sync`` is a request
of receiver a, ``a/Z`` a message that goes to it.
"""

from collections.abc import Iterator

from protocol.pipeline import FAKE, FORWARD, IDLE, SKIP, Reply, ReplyPipeline

KINDS = {
    "Query": "Q",
    "Parse": "P",
    "Bind": "B",
    "Describe": "D",
    "Execute": "E",
    "Close": "C",
    "Sync": "S",
    "FunctionCall": "F",
    "CopyDone": "c",
    "CopyFail": "c",
}
NAMES = {kind: name for name, kind in reversed(KINDS.items())}


class Dialogue:
    def __init__(self) -> None:
        self.pipeline = ReplyPipeline()

    def play(self, script: str) -> None:
        for line in filter(None, map(str.strip, script.splitlines())):
            speaker, _, words = line.partition(":")
            getattr(self, speaker)(words)

    def client(self, words: str) -> None:
        for word in words.split():
            name = word.strip("()[]-")
            receiver, _, name = name.rpartition("/")
            action = SKIP if "(" in word else FAKE if "[" in word else FORWARD
            due = self.pipeline.add(Reply(ord(KINDS[name]), action, receiver))
            assert due is not word.endswith("-"), f"{word} is {'' if due else 'not '}due"

    def server(self, words: str) -> None:
        said, _, wanted = words.partition("=>")
        came = " ".join(part for word in said.split() for part in self._answer(word))
        assert came.split() == wanted.split(), f"{words}: {came}"

    def _answer(self, word: str) -> Iterator[str]:
        pipeline = self.pipeline
        head = pipeline.head()
        receiver = f"{head.receiver}/" if head is not None and head.receiver else ""
        verdict = pipeline.answer(ord(word[0]), ord(word[1]) if len(word) > 1 else IDLE)
        yield "." if verdict == SKIP else receiver + word
        if pipeline.failed is not None:
            assert pipeline.dropped is not None
            yield "{" + ": ".join(map(_names, ([pipeline.failed], pipeline.dropped))).strip() + "}"
        if pipeline.done is not None or word[0] == "E":
            while (fake := pipeline.next_fake()) is not None:
                if fake.action == FAKE:
                    yield f"[{_names([fake])}]"

    def state(self, words: str) -> None:
        pipeline = self.pipeline
        wanted = set(words.split())
        assert pipeline.idle is pipeline.is_idle() is ("idle" in wanted)
        for flag in ("unsynced", "skipping", "copying_in", "copying_out"):
            assert getattr(pipeline, flag) is (flag in wanted), f"{flag}, where {words} was to be"
        assert (len(pipeline) > 0) is ("due" in wanted)


def _names(replies: list[Reply]) -> str:
    return " ".join(
        (f"{reply.receiver}/" if reply.receiver else "") + NAMES[chr(reply.kind)] for reply in replies
    )


def play(script: str) -> ReplyPipeline:
    dialogue = Dialogue()
    dialogue.play(script)
    return dialogue.pipeline
