from __future__ import annotations

import pytest
from fluxmaint.core.errors import CommandError, PreconditionError, TimeoutExceeded
from fluxmaint.core.run import require_tool, run


def test_output_and_input() -> None:
    assert run(["cat"], input=b"x\n", timeout_s=10).text == "x\n"
    assert run(["cat"], timeout_s=10).stdout == b""


def test_a_failing_command_is_named_with_its_last_words() -> None:
    with pytest.raises(CommandError, match="status 2") as caught:
        run(["ls", "/does-not-exist"], timeout_s=10)
    assert "does-not-exist" in str(caught.value)
    assert caught.value.facts["returncode"] == 2
    assert run(["ls", "/does-not-exist"], timeout_s=10, check=False).returncode == 2


def test_a_command_past_its_deadline_is_ended() -> None:
    with pytest.raises(TimeoutExceeded, match=r"sleep did not finish within 0\.2 s"):
        run(["sleep", "30"], timeout_s=0.2)


def test_a_missing_command_is_named_with_its_package() -> None:
    with pytest.raises(PreconditionError, match="no-such-command is not installed"):
        run(["no-such-command"], timeout_s=1)
    with pytest.raises(PreconditionError, match="install the package sometool"):
        require_tool("no-such-command", "sometool")
    assert require_tool("ls").endswith("/ls")
