from __future__ import annotations

from tests.lab.drill import reason_in


def test_the_last_failure_is_told_with_the_commands_own_words() -> None:
    log = """
fatal: [one]: FAILED! => {
    "msg": "an earlier one"
}
...ignoring
fatal: [two]: FAILED! => {
    "changed": true,
    "msg": "non-zero return code",
    "rc": 126,
    "stderr": "env: \\u00fcnode: Permission denied",
    "stdout": ""
}
"""
    assert reason_in(log) == "non-zero return code env: ünode: Permission denied"


def test_quotes_inside_a_message_are_kept() -> None:
    assert reason_in('fatal: [x]: FAILED! => {\n    "msg": "the key \\"a\\" is wrong"\n}') == 'the key "a" is wrong'


def test_a_failure_on_one_line_is_told() -> None:
    log = 'fatal: [x]: FAILED! => {"changed": false, "msg": "two hosts {would} trade"}\n\nPLAY RECAP ***\nx : ok=1\n'
    assert reason_in(log) == "two hosts {would} trade"


def test_a_log_without_a_failure_gives_nothing() -> None:
    assert reason_in("ok: [one]\n") == ""
