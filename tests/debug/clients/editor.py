"""What VS Code says to debugpy: the Debug Adapter Protocol (microsoft.github.io/debug-adapter-protocol)."""

import itertools
import json
import queue
import subprocess
import sys
import threading


class Editor:
    """Launches a program; `stop()` waits for where it stops. As a context manager it ends both."""

    def __init__(self, program, **configuration):
        self.adapter = subprocess.Popen(
            [sys.executable, "-m", "debugpy.adapter"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.arrived, self.numbers, self.printed = queue.Queue(), itertools.count(1), ""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.ask("initialize", adapterID="debugpy", clientID="vscode", pathFormat="path")
        launch = self._send("launch", program=str(program), console="internalConsole", **configuration)
        self._until(event="initialized")
        self.ask("configurationDone")
        self._until(request_seq=launch)

    def stop(self):
        """(reason, the stack as (function, line), the names of the locals) where it stops; None at its end."""
        while (message := self._until(type="event"))["event"] not in ("stopped", "terminated"):
            pass
        if message["event"] == "terminated":
            return None
        self.thread = message["body"]["threadId"]
        frames = self.ask("stackTrace", threadId=self.thread)["stackFrames"]
        (scope, *_) = self.ask("scopes", frameId=frames[0]["id"])["scopes"]
        variables = self.ask("variables", variablesReference=scope["variablesReference"])["variables"]
        return (
            message["body"]["reason"],
            [(frame["name"], frame["line"]) for frame in frames],
            [variable["name"] for variable in variables],
        )

    def press(self, command):
        """`continue`, `next`, `stepIn` or `stepOut`, and where it stops then."""
        self.ask(command, threadId=self.thread)
        return self.stop()

    def ask(self, command, **arguments):
        answer = self._until(request_seq=self._send(command, **arguments))
        assert answer["success"], answer
        return answer.get("body") or {}

    def _send(self, command, **arguments):
        number = next(self.numbers)
        message = {"seq": number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self.adapter.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.adapter.stdin.flush()
        return number

    def _until(self, **wanted):
        while True:
            message = self.arrived.get(timeout=60)
            assert message is not None, f"the debugger is gone; printed was: {self.printed}"
            if message.get("event") == "output" and message["body"].get("category") in ("stdout", "stderr"):
                self.printed += message["body"]["output"]
            if wanted.items() <= message.items():
                return message

    def _read(self):
        while header := self.adapter.stdout.readline():
            self.adapter.stdout.readline()
            self.arrived.put(json.loads(self.adapter.stdout.read(int(header.split(b":")[1]))))
        self.arrived.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.adapter.stdin.close()  # the adapter then ends the program, and itself
        try:
            self.adapter.wait(timeout=20)
        finally:
            self.adapter.kill()
            self.reader.join()
            self.adapter.stdout.close()
