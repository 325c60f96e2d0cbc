"""Long work says how far it is, also where nobody watches a terminal."""

from divid.cli.common import SECONDS_BETWEEN_LINES, ProgressLines, progress_bar


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_log_has_a_line_now_and_then_and_what_is_left(capsys):
    clock = Clock()
    tell = ProgressLines(clock)
    for done in range(11):
        tell("swaps", done, 10)
        clock.now += SECONDS_BETWEEN_LINES / 2
    assert capsys.readouterr().err.splitlines() == [
        "swaps  2/10  2.0 min left",
        "swaps  4/10  1.5 min left",
        "swaps  6/10  1.0 min left",
        "swaps  8/10  0.5 min left",
    ]


def test_each_stage_has_its_own_time_and_short_work_writes_nothing(capsys):
    clock = Clock()
    tell = ProgressLines(clock)
    tell("reading", 0, 2)
    clock.now += SECONDS_BETWEEN_LINES - 1
    tell("reading", 2, 2)
    tell("drawing", 5, None)
    clock.now += SECONDS_BETWEEN_LINES
    tell("reading", 2, 2)  # done
    assert capsys.readouterr().err == ""
    tell("drawing", 7, None)
    assert capsys.readouterr().err == "drawing  7\n"


def test_without_a_terminal_the_bar_is_lines(capsys):
    with progress_bar() as progress:
        assert isinstance(progress, ProgressLines)
        progress("swaps", 1, 2)
    assert capsys.readouterr().err == ""
