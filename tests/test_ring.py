"""The keeper's ring: what is kept, what is dropped, what a killed keeper leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_sessions_ext.keeper.protocol import (
    Channel,
    Kind,
    ProtocolError,
    Unpacker,
    pack,
    pack_json,
    unpack_records,
)
from jupyter_sessions_ext.keeper.ring import SEGMENTS, MissedError, Reader, Ring

LIMIT = 64 << 10


def put(ring: Ring, *texts: bytes) -> None:
    ring.append([(Channel.IOPUB, b"", [text]) for text in texts])


def rest(reader: Reader, size: int = 4096) -> list[tuple[int, bytes]]:
    """Read to the end."""
    found = []
    while data := reader.read(size):
        found += [(r.number, r.frames[0]) for r in unpack_records(data)]
    return found


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path / "ring", LIMIT)


def test_a_message_comes_back_as_it_was(ring: Ring) -> None:
    frames = [b"signature", b"{}", b"", b"{}", b"content", b"\x00buffer"]
    ring.append([(Channel.SHELL, b"client", frames)])
    [record] = unpack_records(ring.reader(1).read(100))
    assert record == (Channel.SHELL, 1, b"client", frames)


def test_what_is_appended_later_is_read_later(ring: Ring) -> None:
    reader = ring.reader(1)
    assert (reader.read(100), reader.is_at_end) == (b"", True)
    put(ring, b"a", b"b")
    assert rest(reader) == [(1, b"a"), (2, b"b")]
    put(ring, b"c")
    assert not reader.is_at_end
    assert rest(reader) == [(3, b"c")]


def test_the_oldest_are_dropped_beyond_the_limit_and_a_reader_is_told_how_many(ring: Ring) -> None:
    reader = ring.reader(1)
    texts = [b"%d" % n + b"x" * 1000 for n in range(200)]
    for text in texts:
        put(ring, text)
        assert ring.size <= LIMIT
    assert ring.size > LIMIT * 6 // 8
    with pytest.raises(MissedError) as missed:
        reader.read(100)
    assert missed.value.count == ring.first - 1
    assert rest(reader) == list(enumerate(texts, 1))[ring.first - 1 :]
    files = [file.stat().st_size for file in ring.folder.iterdir()]
    assert sum(files) == ring.size


def test_many_messages_at_once_are_no_more_than_the_limit(ring: Ring) -> None:
    reader = ring.reader(1)
    texts = [b"%d" % n + b"x" * 1000 for n in range(200)]
    put(ring, *texts)
    assert LIMIT * 6 // 8 < ring.size <= LIMIT
    assert max(file.stat().st_size for file in ring.folder.iterdir()) < LIMIT // SEGMENTS + 2000
    with pytest.raises(MissedError):
        reader.read(100)
    assert rest(reader) == list(enumerate(texts, 1))[ring.first - 1 :]


def test_the_latest_is_kept_however_large_it_is(ring: Ring) -> None:
    put(ring, b"a" * 10)
    put(ring, b"b" * 3 * LIMIT)
    assert rest(ring.reader(2)) == [(2, b"b" * 3 * LIMIT)]
    put(ring, b"c")
    assert ring.first == 3


IDLE = [b"", b'{"msg_type": "status"}', b"{}", b"{}", b'{"execution_state": "idle"}']
REPLY = [b"", b'{"msg_type": "execute_reply"}', b"{}", b"{}", b"{}"]
OUTPUT = [b"", b'{"msg_type": "stream"}', b"{}", b"{}", b'{"name": "stdout", "text": "\\"idle\\""}']


def test_what_ends_a_cell_is_kept_when_the_rest_is_dropped(tmp_path: Path) -> None:
    ring = Ring(tmp_path, LIMIT)
    ring.append([(Channel.IOPUB, b"", OUTPUT), (Channel.SHELL, b"client", REPLY)])
    ring.append([(Channel.IOPUB, b"", IDLE)])
    put(ring, *[b"x" * 1000] * 200)
    for kept_by in (ring, Ring(tmp_path, LIMIT)):  # the next keeper too
        for number, expected in ((1, [2, 3]), (3, [3]), (4, [])):
            with pytest.raises(MissedError) as missed:
                kept_by.reader(number).read(100)
            records = [*unpack_records(missed.value.kept)]
            assert [r.number for r in records] == expected
            assert missed.value.count == kept_by.first - number - len(expected)
            assert [r.frames for r in records] == [REPLY, IDLE][2 - len(expected) :]


def test_what_is_skipped_is_missed_with_all_before_it(tmp_path: Path) -> None:
    ring = Ring(tmp_path, LIMIT)
    reader = ring.reader(1)
    put(ring, b"a")
    ring.skip([(Channel.IOPUB, b"", frames) for frames in (OUTPUT, IDLE, OUTPUT)])
    with pytest.raises(MissedError) as missed:
        reader.read(100)
    assert missed.value.count == 3
    assert [r.number for r in unpack_records(missed.value.kept)] == [3]
    assert (reader.read(100), reader.is_at_end) == (b"", True)
    put(ring, b"b")
    assert rest(reader) == rest(Ring(tmp_path, LIMIT).reader(5)) == [(5, b"b")]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == ring.size


def test_it_is_the_latest_that_is_kept_so_and_within_the_limit(tmp_path: Path) -> None:
    ring = Ring(tmp_path, LIMIT)
    for _ in range(100):
        ring.append([(Channel.IOPUB, b"", IDLE)] * 50)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == ring.size <= LIMIT
    with pytest.raises(MissedError) as missed:
        ring.reader(1).read(100)
    numbers = [r.number for r in unpack_records(missed.value.kept)]
    assert numbers == [*range(ring.first - len(numbers), ring.first)]
    assert len(missed.value.kept) > LIMIT // SEGMENTS // 3


@pytest.mark.parametrize("cut", [1, 5, 17, 20])
def test_what_a_killed_keeper_has_half_written_of_it_is_cut_off(tmp_path: Path, cut: int) -> None:
    ring = Ring(tmp_path, LIMIT)
    for _ in range(2):
        ring.append([(Channel.IOPUB, b"", IDLE)] * 2)
        put(ring, b"x" * LIMIT)
        os.truncate(tmp_path / "essence", (tmp_path / "essence").stat().st_size - cut)
        ring = Ring(tmp_path, LIMIT)
    with pytest.raises(MissedError) as missed:
        ring.reader(1).read(100)
    assert [r.number for r in unpack_records(missed.value.kept)] == [1, 4]


def test_what_is_none_of_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "essence").write_bytes(pack_json(Kind.NOTE, a=1))
    assert Ring(tmp_path, LIMIT).size == 0


def test_the_next_keeper_goes_on_with_it(tmp_path: Path) -> None:
    put(Ring(tmp_path, LIMIT), b"a", b"b")
    ring = Ring(tmp_path, LIMIT)
    put(ring, b"c")
    assert rest(ring.reader(1)) == [(1, b"a"), (2, b"b"), (3, b"c")]


@pytest.mark.parametrize("cut", [1, 5, 17, 20])
def test_a_message_that_a_killed_keeper_has_half_written_is_no_message(
    tmp_path: Path, cut: int
) -> None:
    put(Ring(tmp_path, LIMIT), b"a")
    put(Ring(tmp_path, LIMIT), b"b", b"c")
    last = max(tmp_path.iterdir())
    os.truncate(last, last.stat().st_size - cut)
    ring = Ring(tmp_path, LIMIT)
    put(ring, b"d")
    assert rest(ring.reader(1)) == [(1, b"a"), (2, b"b"), (3, b"d")]


def test_files_that_are_none_of_its_are_told_of_and_not_used(tmp_path: Path) -> None:
    (tmp_path / "x.ring").write_bytes(b"")
    (tmp_path / f"{1:020d}.ring").write_bytes(pack_json(Kind.NOTE, a=1))
    told: list[str] = []
    ring = Ring(tmp_path, LIMIT, told.append)
    put(ring, b"a")
    assert rest(ring.reader(1)) == [(1, b"a")]
    assert len(told) == 2


def test_its_files_are_its_users_alone(ring: Ring) -> None:
    put(ring, b"a")
    assert ring.folder.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in ring.folder.iterdir()] == [0o600]


def test_on_a_full_disk_it_goes_on_in_memory_and_on_disk_again_when_there_is_space(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    ring = Ring(tmp_path, LIMIT, told.append)
    put(ring, b"a" * (LIMIT // SEGMENTS))
    (tmp_path / f"{2:020d}.ring").symlink_to("/dev/full")
    put(ring, b"b" * (LIMIT // SEGMENTS))
    assert len(told) == 1
    put(ring, b"c")
    expected = [(1, b"a"), (2, b"b"), (3, b"c")]
    assert [(n, text[:1]) for n, text in rest(ring.reader(1))] == expected
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{n:020d}.ring" for n in (1, 3)]


def test_where_it_cannot_have_a_folder_it_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told: list[str] = []
    ring = Ring(tmp_path / "file" / "ring", LIMIT, told.append)
    put(ring, b"a")
    put(ring, b"b")
    assert rest(ring.reader(1)) == [(1, b"a"), (2, b"b")]
    assert len(told) == 1


def test_what_follows_a_gap_that_a_killed_keeper_has_left_is_kept(tmp_path: Path) -> None:
    for text in (b"a", b"b", b"c"):
        put(Ring(tmp_path, LIMIT), text)
    (tmp_path / f"{2:020d}.ring").unlink()
    assert rest(Ring(tmp_path, LIMIT).reader(3)) == [(3, b"c")]
    assert len([*tmp_path.iterdir()]) == 1


def test_what_is_removed_leaves_nothing(ring: Ring) -> None:
    put(ring, b"a")
    ring.remove()
    assert not ring.folder.exists()


@given(st.lists(st.one_of(st.integers(0, 30_000), st.none()), max_size=60), st.integers(1, 40_000))
@settings(deadline=None, max_examples=60)
def test_readers_anywhere_read_all_that_is_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int | None], size: int
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = Ring(folder, LIMIT)
    reader, expected, found, missed, written = ring.reader(1), 0, 0, 0, 0
    for step in steps:
        if step is None:
            try:
                records = [*unpack_records(reader.read(size))]
            except MissedError as error:
                missed += error.count
            else:
                found += len(records)
                assert [r.number for r in records] == [
                    *range(expected + 1, expected + 1 + len(records))
                ]
            expected = found + missed
        else:
            put(ring, b"x" * step)
            written += 1
    for number in (1, ring.first, (ring.first + ring.next) // 2, ring.next):
        again = Ring(folder, LIMIT).reader(max(number, ring.first))
        assert [n for n, _ in rest(again)] == [*range(max(number, ring.first), written + 1)]


@given(
    st.lists(st.tuples(st.sampled_from(Channel), st.integers(0, 2**64 - 1), st.lists(st.binary()))),
    st.integers(1, 50),
)
def test_packets_come_out_as_they_went_in_however_they_are_cut(
    packets: list[tuple[Channel, int, list[bytes]]], size: int
) -> None:
    data = b"".join(pack(Kind.REQUEST, *packet) for packet in packets)
    unpacker = Unpacker()
    found = [p for at in range(0, len(data), size) for p in unpacker.feed(data[at : at + size])]
    assert found == [(Kind.REQUEST, *packet) for packet in packets]


@given(st.binary(min_size=16))
def test_garbage_is_refused_or_waited_for_but_never_fails_otherwise(data: bytes) -> None:
    unpacker = Unpacker()
    try:
        for packet in unpacker.feed(data):
            assert packet.kind in Kind
    except ProtocolError:
        pass


def test_json_that_is_none_is_refused() -> None:
    for frames in ([], [b"{"], [b"[]"], [b"\xff"]):
        [packet] = Unpacker().feed(pack(Kind.CALL, Channel.IOPUB, 1, frames))
        with pytest.raises(ProtocolError):
            _ = packet.body
    with pytest.raises(ProtocolError):
        [*Unpacker().feed(pack(Kind.CALL, Channel.IOPUB, 1, [b" " * (2 << 20)]))]
