"""The lag, told from what is known at each moment, by a clock of the test."""

from __future__ import annotations

from dataclasses import replace

from cdc.lag import Lag, Progress
from cdc.position import Position

START = 1_700_000_000.0
SILENCE = 10.0


class Scene:
    """A stream, a source and a clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now = START
        self.stream = Progress()
        self.lag = Lag(lambda: self.now)
        self.lag.follow(lambda: self.stream, SILENCE)

    def connect(self) -> None:
        self.stream = replace(self.stream, connected=self.now)

    def applied(self, offset: int, *, committed: float | None = None, pending: bool = False) -> None:
        """All before `offset` is in the copy."""
        heard = None if pending else self.now
        stream = replace(self.stream, place=at(offset), heard=heard, pending=pending)
        self.stream = stream if committed is None else replace(stream, committed=committed)

    def asked(self, offset: int, file: str = "binlog.000007", **sizes: int) -> None:
        """The source said that its log ends there."""
        named = {name.replace("_", "."): size for name, size in sizes.items()}
        self.lag.source_seen(at(offset, file), self.now, covered=self.lag.place(), sizes=named)


def at(offset: int, file: str = "binlog.000007", server: str = "one") -> Position:
    return Position("mysql", server, file, offset)


def caught_up() -> Scene:
    scene = Scene()
    scene.connect()
    scene.applied(100, committed=START)
    scene.asked(100)
    return scene


def test_before_the_first_contact_the_lag_is_unknown() -> None:
    scene = Scene()
    assert scene.lag.seconds() is None
    assert scene.lag.bytes() is None
    scene.applied(100, committed=START - 86_400)  # the copy as the last run left it
    assert scene.lag.seconds() is None


def test_a_copy_that_has_everything_has_no_lag_however_long_nothing_happens() -> None:
    scene = caught_up()
    for _ in range(1000):
        scene.now += 5
        scene.applied(100)  # a heartbeat
        assert scene.lag.seconds() == 0
    assert scene.lag.bytes() == 0


def test_the_first_change_after_a_long_silence_does_not_show_the_silence_as_lag() -> None:
    scene = caught_up()
    scene.now += 86_400
    scene.applied(100)
    scene.asked(100)
    scene.lag.observe()
    scene.now += 0.5
    scene.applied(100, pending=True)
    assert scene.lag.seconds() == 0.5


def test_the_lag_grows_while_the_source_is_away() -> None:
    scene = caught_up()
    assert scene.lag.seconds() == 0
    shown = []
    for _ in range(4):
        scene.now += 30
        shown.append(scene.lag.seconds())
    assert shown == [30, 60, 90, 120]


def test_a_source_that_is_lost_leaves_the_lag_growing_and_the_bytes_unknown() -> None:
    scene = caught_up()
    scene.lag.source_lost()
    scene.stream = replace(scene.stream, heard=None, connected=None)
    scene.now += 42
    assert scene.lag.seconds() == 42
    assert scene.lag.bytes() is None
    assert scene.lag.end is None


def test_a_slow_writer_shows_the_age_of_what_is_applied() -> None:
    scene = caught_up()
    scene.lag.observe()
    scene.now += 20
    scene.asked(900)
    scene.applied(300, committed=START + 5, pending=True)
    assert scene.lag.seconds() == 15
    assert scene.lag.bytes() == 600
    scene.applied(900, committed=START + 20)
    assert scene.lag.seconds() == 0


def test_a_place_behind_the_end_of_the_log_is_lag_although_nothing_waits_on_our_side() -> None:
    scene = caught_up()
    scene.now += 8
    scene.asked(500)
    scene.applied(100)  # the source is searching its log: it sends heartbeats, and nothing else
    assert scene.lag.seconds() == 8
    assert scene.lag.bytes() == 400


def test_silence_right_after_connecting_proves_nothing_before_the_source_was_asked() -> None:
    scene = caught_up()
    scene.now += 60
    scene.connect()
    scene.applied(100)
    assert scene.lag.seconds() == 60
    scene.asked(100)
    assert scene.lag.seconds() == 0


def test_a_stopped_stream_of_a_quiet_source_has_no_lag() -> None:
    scene = caught_up()
    scene.stream = Progress(at(100), START)
    scene.now += 3600
    scene.asked(100)
    assert scene.lag.seconds() == 0
    scene.now += 60
    scene.asked(200)
    assert scene.lag.seconds() == 60


def test_commit_times_of_a_source_whose_clock_is_wrong_are_moved_to_ours() -> None:
    for ahead in (-3600.0, 3600.0):
        scene = Scene()
        scene.lag.clocks_compared(START + ahead, START - 0.5, START + 0.5)
        assert scene.lag.clock_offset == ahead
        scene.connect()
        scene.now += 30
        scene.applied(100, committed=START + ahead + 10, pending=True)
        scene.asked(900)
        assert scene.lag.seconds() == 20


def test_a_session_that_sets_its_own_time_moves_the_lag_neither_back_nor_into_the_future() -> None:
    scene = caught_up()
    scene.now += 20
    scene.asked(900)
    scene.applied(200, committed=START + 15, pending=True)
    assert scene.lag.seconds() == 5
    scene.applied(300, committed=1.0, pending=True)
    assert scene.lag.seconds() == 5
    scene.applied(400, committed=START + 1e9, pending=True)
    assert scene.lag.seconds() == 0
    scene.now += 7
    assert scene.lag.seconds() == 7


def test_bytes_are_counted_over_all_files_between() -> None:
    scene = caught_up()
    sizes = {"binlog_000006": 1000, "binlog_000007": 500, "binlog_000008": 700, "binlog_000009": 50}
    scene.asked(50, "binlog.000009", **sizes)
    assert scene.lag.bytes() == 400 + 700 + 50
    scene.asked(50, "binlog.000009", binlog_000008=700)
    assert scene.lag.bytes() is None  # a file between is purged


def test_another_server_can_not_be_compared() -> None:
    scene = caught_up()
    scene.now += 30
    scene.lag.source_seen(at(100, server="two"), scene.now, covered=scene.lag.place(), sizes={})
    assert scene.lag.bytes() is None
    assert scene.lag.seconds() == 30


def test_a_log_that_was_reset_is_not_taken_for_one_that_is_applied() -> None:
    scene = caught_up()
    scene.now += 30
    scene.stream = Progress(at(100), START)
    scene.asked(157, "binlog.000001")
    assert scene.lag.bytes() is None
    assert scene.lag.seconds() == 30
