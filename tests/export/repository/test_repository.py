import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from export.card import CARD_FILE, CardError, ModelCard
from export.repository.build_folder import is_built
from export.repository.repository import COMMITTED, KEPT_VERSIONS, Repository
from export.repository.version_content import MixedExportError
from export.repository.version_list import VersionError
from tests.small_disk import mounted

Publish = Callable[[str], int]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def publish(repository: Repository, built: Path, card: ModelCard) -> Publish:
    """Publish a graph with this content; returns its version."""

    def publish(content: str) -> int:
        (built / "fp32.onnx").write_text(content)
        return int(repository.publish(card, built / "fp32.onnx", built).name)

    return publish


def content(repository: Repository) -> str:
    """What is served: the newest version's graph, which must have everything with it."""
    folder = repository.version_folder("digits")
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model_card.json", "samples.npz"]
    return (folder / "model.onnx").read_text()


def test_version_folder_holds_model_assets_and_card(tmp_path: Path, built: Path, card: ModelCard) -> None:
    repository = Repository(tmp_path / "repository")
    version = repository.publish(card, built / "fp32.onnx", built)
    assert version == tmp_path / "repository" / "digits" / "1"
    assert sorted(path.name for path in version.iterdir()) == ["model.onnx", "model_card.json", "samples.npz"]
    assert repository.serves("digits")
    assert repository.card("digits") == card


def test_repository_of_ones_own_gets_the_committed_config_once(tmp_path: Path, built: Path, card: ModelCard) -> None:
    config = tmp_path / "repository" / "digits" / "config.pbtxt"
    repository = Repository(tmp_path / "repository")
    repository.publish(card, built / "fp32.onnx", built)
    assert config.read_text() == (COMMITTED / "digits" / "config.pbtxt").read_text()
    config.write_text("changed by its owner")
    repository.publish(card, built / "fp32.onnx", built)
    assert config.read_text() == "changed by its owner"


def test_publishing_makes_a_new_version_and_serves_it(repository: Repository, publish: Publish) -> None:
    assert [publish(each) for each in ("first", "second", "third")] == [1, 2, 3]
    assert repository.versions("digits") == (1, 2, 3)
    assert content(repository) == "third"
    assert repository.names() == ("digits",)


def test_publishing_what_is_served_already_makes_no_version(repository: Repository, publish: Publish) -> None:
    assert [publish(each) for each in ("same", "same")] == [1, 1]


def test_publishing_other_assets_is_a_new_version(repository: Repository, publish: Publish, built: Path) -> None:
    publish("same")
    (built / "samples.npz").write_text("other")
    assert publish("same") == 2


def test_export_that_another_took_the_place_of_is_not_published(
    repository: Repository, publish: Publish, built: Path, card: ModelCard
) -> None:
    publish("first")
    (built / "fp32.onnx").write_text("of another export, whose card lies beside it")
    mine = card.model_copy(update={"fp32_sha256": "2" * 64})
    with pytest.raises(MixedExportError, match="build/models/digits: another process has exported it anew meanwhile"):
        repository.publish(mine, built / "fp32.onnx", built)
    assert content(repository) == "first"
    assert repository.versions("digits") == (1,)


def test_promoting_what_is_served_under_another_number_makes_no_version(
    repository: Repository, publish: Publish
) -> None:
    for each in ("first", "second"):
        publish(each)
    assert [repository.promote("digits", 1) for _ in range(2)] == [3, 3]


def test_only_the_newest_few_versions_stay(repository: Repository, publish: Publish) -> None:
    last = [publish(str(number)) for number in range(KEPT_VERSIONS + 3)][-1]
    assert repository.versions("digits") == tuple(range(last - KEPT_VERSIONS + 1, last + 1))


def test_promoted_content_is_served_as_a_new_version_and_costs_no_disk(
    repository: Repository, publish: Publish
) -> None:
    for each in ("first", "second", "third"):
        publish(each)
    assert repository.promote("digits", 1) == 4
    assert content(repository) == "first"
    graphs = [repository.version_folder("digits", version) / "model.onnx" for version in (1, 4)]
    assert graphs[0].samefile(graphs[1])


def test_promoting_what_is_served_changes_nothing(repository: Repository, publish: Publish) -> None:
    publish("first")
    assert repository.promote("digits", 1) == 1
    assert repository.versions("digits") == (1,)


def test_rollback_goes_back_step_by_step_and_not_to_and_fro(repository: Repository, publish: Publish) -> None:
    for each in ("first", "second", "third"):
        publish(each)
    assert repository.promote("digits", repository.earlier("digits")) == 4
    assert content(repository) == "second"
    assert repository.promote("digits", repository.earlier("digits")) == 5
    assert content(repository) == "first"


def test_rollback_goes_back_to_other_assets_of_the_same_graph(
    repository: Repository, publish: Publish, built: Path
) -> None:
    publish("graph")
    (built / "samples.npz").write_text("spoilt")
    publish("graph")
    assert repository.versions("digits") == (1, 2)
    version = repository.promote("digits", repository.earlier("digits"))
    assert (repository.version_folder("digits", version) / "samples.npz").read_text() == "asset"


def test_rollback_without_anything_earlier_is_refused(repository: Repository, publish: Publish) -> None:
    publish("first")
    with pytest.raises(VersionError, match=r"nothing earlier than version 1.*there are \[1\]"):
        repository.promote("digits", repository.earlier("digits"))
    assert content(repository) == "first"


def test_removed_version_is_gone_and_the_served_one_cannot_be(repository: Repository, publish: Publish) -> None:
    for each in ("first", "second"):
        publish(each)
    with pytest.raises(VersionError, match="digits: version 2 is being served; promote another"):
        repository.remove("digits", 2)
    repository.remove("digits", 1)
    assert repository.versions("digits") == (2,)


@pytest.mark.parametrize("change", ["promote", "remove"])
def test_unknown_version_or_model_is_named_with_the_known(
    repository: Repository, publish: Publish, change: str
) -> None:
    publish("first")
    with pytest.raises(VersionError, match=r"digits: no version 9 in .*; there are \[1\]"):
        getattr(repository, change)("digits", 9)
    with pytest.raises(VersionError, match=r"nope: no version 1 in .*; known models: digits"):
        getattr(repository, change)("nope", 1)


def test_version_policy_written_by_hand_is_left_to_its_owner(repository: Repository, publish: Publish) -> None:
    for each in ("first", "second"):
        publish(each)
    config = repository.folder / "digits" / "config.pbtxt"
    config.write_text('name: "digits" version_policy { specific { versions: [1] } }')
    with pytest.raises(VersionError, match="version_policy: expected latest, got specific"):
        repository.promote("digits", 1)


def test_model_put_there_by_somebody_else_has_no_card(tmp_path: Path) -> None:
    version = tmp_path / "digits" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_text("graph")
    assert Repository(tmp_path).serves("digits")
    assert Repository(tmp_path).card("digits") is None


def test_export_whose_card_cannot_be_read_is_not_built(tmp_path: Path, built: Path) -> None:
    (built / CARD_FILE).write_text('{"name": "of another version"}')
    assert not is_built(tmp_path / "build", "digits")


@pytest.mark.parametrize("lost", ["fp32.onnx", CARD_FILE])
def test_export_without_graph_or_card_is_not_built(tmp_path: Path, built: Path, lost: str) -> None:
    assert is_built(tmp_path / "build", "digits")
    (built / lost).unlink()
    assert not is_built(tmp_path / "build", "digits")


def test_unreadable_card_is_named(tmp_path: Path, built: Path, card: ModelCard) -> None:
    repository = Repository(tmp_path / "repository")
    version = repository.publish(card, built / "fp32.onnx", built)
    (version / CARD_FILE).write_text("{}")
    with pytest.raises(CardError, match=r"1/model_card.json is not a readable model card"):
        repository.card("digits")


ROOT = Path(__file__).parents[3]


FULL = """
import sys
from pathlib import Path
from export.card import read_card
from export.repository.repository import Repository

built = Path(sys.argv[1])
try:
    Repository(Path(sys.argv[2])).publish(read_card(built), built / "fp32.onnx", built)
except OSError as error:
    sys.exit(f"refused: {error.strerror}")
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 256 KiB."""
    with mounted(tmp_path / "disk", 256) as disk:
        yield disk


def test_full_disk_leaves_the_old_version_and_no_rest(small_disk: Path, built: Path, card: ModelCard) -> None:
    repository = Repository(small_disk / "repository")
    repository.publish(card, built / "fp32.onnx", built)
    (built / "fp32.onnx").write_bytes(os.urandom(300_000))
    with pytest.raises(OSError, match="No space left on device"):
        repository.publish(card, built / "fp32.onnx", built)
    assert repository.versions("digits") == (1,)
    assert content(repository) == "graph"
    (built / "fp32.onnx").write_bytes(b"smaller")
    repository.publish(card, built / "fp32.onnx", built)
    assert content(repository) == "smaller"


def test_file_size_limit_leaves_the_old_version_and_no_rest(
    repository: Repository, publish: Publish, built: Path
) -> None:
    publish("graph")
    (built / "fp32.onnx").write_bytes(os.urandom(300_000))
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n{FULL}"
    command = [sys.executable, "-c", limited, str(built), str(repository.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "refused: File too large\n")
    assert content(repository) == "graph"
    assert sorted(path.name for path in (repository.folder / "digits").iterdir()) == ["1", "config.pbtxt"]
