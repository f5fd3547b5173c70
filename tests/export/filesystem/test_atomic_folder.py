"""A folder is replaced whole or not at all, wherever the process dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from export.filesystem.atomic_folder import recover, replacing
from export.filesystem.folder_lock import FolderBusyError

# Replaces a folder and dies, without any clean-up, at the N-th change it makes to the disk. Prints the last one's name.
DYING_WRITER = """
import os, sys
from pathlib import Path
from export.filesystem.atomic_folder import replacing

target, last = Path(sys.argv[1]), int(sys.argv[2])
changes = 0

def die_at_last(event, args):
    global changes
    # A file opened for writing counts; opened for reading, it changes nothing.
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        changes += 1
        if changes == last:
            os.write(1, event.encode())
            os._exit(9)

sys.dont_write_bytecode = True
sys.addaudithook(die_at_last)
with replacing(target) as new:
    (new / "a").write_text("new")
    (new / "b").write_text("new")
"""


def write_whole(target: Path, content: str) -> None:
    with replacing(target) as new:
        (new / "a").write_text(content)
        (new / "b").write_text(content)


def contents(target: Path) -> list[str]:
    return sorted(f"{path.name}={path.read_text()}" for path in target.iterdir())


def die_while_replacing(target: Path, last: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", DYING_WRITER, str(target), str(last)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 9), done.stderr
    return done.returncode, done.stdout


def test_crash_at_any_step_leaves_old_or_new_whole(tmp_path: Path) -> None:
    steps: list[str] = []
    seen = set()
    while True:
        target = tmp_path / str(len(steps)) / "1"
        write_whole(target, "old")
        code, event = die_while_replacing(target, len(steps) + 1)
        # Never half written, even before anything is repaired.
        if target.exists():
            assert contents(target) in (["a=old", "b=old"], ["a=new", "b=new"])
        recover(target)
        assert contents(target) in (["a=old", "b=old"], ["a=new", "b=new"])
        seen.add(contents(target)[0])
        # And the next writer gets through, and leaves nothing lying about.
        write_whole(target, "newer")
        assert contents(target) == ["a=newer", "b=newer"]
        assert [path.name for path in target.parent.iterdir()] == ["1"]
        if code == 0:
            break
        steps.append(event)
    assert steps.count("os.rename") == 3
    assert seen == {"a=old", "a=new"}


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_crash_while_writing_the_first_leaves_nothing(tmp_path: Path, last: int) -> None:
    target = tmp_path / "model" / "1"
    code, _ = die_while_replacing(target, last)
    assert code == 9
    recover(target)
    assert not target.exists()


def test_error_while_writing_keeps_the_old(tmp_path: Path) -> None:
    target = tmp_path / "1"
    write_whole(target, "old")
    with pytest.raises(TypeError), replacing(target) as new:
        (new / "a").write_text(b"not text")  # type: ignore[arg-type]
    assert contents(target) == ["a=old", "b=old"]
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_half_deleted_old_folder_is_never_put_back(tmp_path: Path) -> None:
    target = tmp_path / "1"
    write_whole(target, "old")
    (target / "a").unlink()
    target.rename(tmp_path / ".1.trash")
    recover(target)
    assert not target.exists()


def test_error_between_the_two_renames_puts_the_old_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "1"
    write_whole(target, "old")
    rename = Path.rename

    def full_disk(path: Path, to: Path) -> Path:
        if path.name == ".1.new":
            raise OSError("no space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_whole(target, "new")
    assert contents(target) == ["a=old", "b=old"]
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_reader_does_not_repair_under_a_writers_hands(tmp_path: Path) -> None:
    target = tmp_path / "1"
    with replacing(target):
        (tmp_path / ".1.old").mkdir()
        recover(target)
        assert not target.exists()


def test_second_writer_is_refused_while_one_is_writing(tmp_path: Path) -> None:
    target = tmp_path / "1"
    with replacing(target) as new:
        (new / "a").write_text("first")
        with pytest.raises(FolderBusyError, match=rf"process {os.getpid()} \(.*pytest.*\) is writing there"):
            write_whole(target, "second")
    assert contents(target) == ["a=first"]


def test_names_beside_are_none_that_triton_takes_for_a_version(tmp_path: Path) -> None:
    with replacing(tmp_path / "1"):
        # Triton reads a version folder's name with strtoll, which takes "1.new" for 1.
        assert all(not path.name[0].isdigit() for path in tmp_path.iterdir())
