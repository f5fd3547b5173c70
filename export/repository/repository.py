"""The model repository: what Triton serves, `NAME/VERSION/model.onnx` beside `NAME/config.pbtxt`.

A version folder holds everything about the model in it: the graph, the assets its callers need, and the card.
Versions only move forward: publishing makes a new number, and so does going back, whose new version holds the content
of an old one. The newest is served (Triton's `latest { num_versions: 1 }`), so every change of what is served is one
rename of a finished folder, and a crash at any point leaves the version before (docs/decisions/0012). Where the
configuration changes too, that is the one rename (`export.repository.pinned_version`); a model that is new appears as
a whole.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from export.card import ModelCard
from export.configuration.model_config import CONFIG_FILE, ConfigError, config_in, has_config, parse_config
from export.filesystem.atomic_folder import appearing, discard, link, naming, write_file
from export.filesystem.folder_lock import Tell
from export.repository.exclusive_change import ExclusiveChanges
from export.repository.pinned_version import pinned, return_to
from export.repository.previous_files import PreviousFiles, labels_in
from export.repository.version_content import FP32_FILE, Content
from export.repository.version_list import FIRST_VERSION, VersionError, Versions, same_bytes, same_content

# The served version and those to go back to. More would fill a disk with what nobody asks for.
KEPT_VERSIONS: Final = 4


DEFAULT_REPOSITORY: Final = Path("model_repository")

# The configurations that are committed, for a repository that is not this one.
COMMITTED: Final = Path(__file__).parents[2] / DEFAULT_REPOSITORY


class Repository(Versions):
    """A Triton model repository on disk, and all that changes it.

    Args:
        folder: where it is.
        waiting: told whom a change waits for, where another process is changing the model. Without it, nobody is
            waited for, and the change is refused at once.
    """

    def __init__(self, folder: Path, waiting: Tell | None = None) -> None:
        super().__init__(folder)
        self._changes = ExclusiveChanges(folder, waiting)

    def changing(self, name: str) -> AbstractContextManager[frozenset[str]]:
        """Be the only one that changes a model; see `exclusive_change`. Every change does this by itself."""
        return self._changes.of(name)

    def settle(self, name: str) -> None:
        """Undo what a crash has left half done, so that the newest version is the one that is served."""
        self._changes.settle(name)

    def publish(self, card: ModelCard, onnx_path: Path, assets: Path, *, configure: bool = False) -> Path:
        """Serve this graph from now on, as a new version.

        Where the served version has the same graph and assets already, only its card is replaced. Of older versions
        the newest few stay to go back to.

        Args:
            card: describes the graph; its name is the model's.
            onnx_path: the graph.
            assets: a built folder. Its configuration and labels become the model's where it has none; the other
                files but the graph and the card go along with the version.
            configure: replace the model's configuration and labels too, when the version is there.

        Returns:
            The version folder.

        Raises:
            FolderBusyError: another process is changing this model.
            OSError: the disk is full, for one. What was served stays so.
        """
        with self.changing(card.name), self._model(card.name) as model:
            content = Content.of(card, onnx_path, assets)
            version = self._publish(model, content, configure=configure)
        return self.version_folder(card.name, version)

    def configure(self, card: ModelCard, built: Path) -> None:
        """Replace the model's configuration and labels by those of a built folder, of which this is the card.

        Raises:
            MixedExportError: another export has taken its place.
        """
        with self.changing(card.name):
            content = Content.of(card, built / FP32_FILE, built)
            content.check()
            self._configure(content)

    def rewrite_config(self, name: str, edit: Callable[[str], str]) -> None:
        """Replace the model's configuration by what `edit` makes of its text; its labels stay.

        Raises:
            ConfigError: the text is not a model configuration.
            FolderBusyError: another process is changing this model.
        """
        path = self.folder / name / CONFIG_FILE
        with self.changing(name):
            text = edit(config_in(path))
            parse_config(text, CONFIG_FILE)
            write_file(path, text.encode())

    def promote(self, name: str, version: int) -> int:
        """Serve an older version's content again, as a new version, with the labels that it was published with.

        The configuration stays as it is. Costs no disk where it has hard links.

        Returns:
            The new version's number; that of the served one where it has this content already.

        Raises:
            VersionError: there is no such version, or the model is not served by its newest version.
        """
        with self.changing(name):
            self.expect(name, version)
            older, served = self.version_folder(name, version), self.version_folder(name)
            if same_content(older, served):
                return int(served.name)
            model = self.folder / name
            new_version, labels = self._next(model), labels_in(older)
            others = labels.items() - labels_in(model).items()
            configuration = (model / CONFIG_FILE).read_bytes()
            with pinned(model, new_version) if others else contextlib.nullcontext():
                with appearing(self.version_folder(name, new_version)) as new:
                    for file in sorted(older.iterdir()):
                        link(file, new / file.name)
                for label_file, content in others:
                    write_file(model / label_file, content)
                if others:
                    write_file(model / CONFIG_FILE, configuration)
            self._forget_oldest(name)
        return new_version

    def remove(self, name: str, version: int) -> None:
        """Delete a version that is not served.

        Raises:
            VersionError: there is no such version, or it is the one that is served.
        """
        with self.changing(name) as finished:
            if self._is_gone(name, version, finished):
                return
            if version == self.versions(name)[-1]:
                raise VersionError(f"{name}: version {version} is being served; promote another, or roll back, first")
            discard(self.version_folder(name, version))

    def previous_files(self, name: str) -> PreviousFiles:
        """What lies beside a model's graphs now; nothing where the model is not there."""
        return PreviousFiles.of(self.folder / name, self.version_folder(name))

    def withdraw(self, name: str, version: int, before: PreviousFiles) -> None:
        """Take a version away, which no server could load; what was there before is served again, as it was.

        Args:
            name: the model.
            version: its newest.
            before: from when the version was not there.

        Raises:
            VersionError: there is no such version.
        """
        with self.changing(name) as finished:
            if self._is_gone(name, version, finished):
                return
            if self.versions(name) != (version,):
                self._return_to(name, version, before)
            elif before.files:
                # As when it was published: a configuration, and nothing to serve.
                discard(self.version_folder(name, version))
                self._put_back(name, before.configuration)
            else:
                self._vanish(name)

    def put_back(self, name: str, before: PreviousFiles) -> None:
        """Give a model the configuration and labels, and its served version the card, that it had before."""
        with self.changing(name):
            self._return_to(name, self._next(self.folder / name), before)

    def _return_to(self, name: str, version: int, before: PreviousFiles) -> None:
        model, now = self.folder / name, self.previous_files(name)
        if CONFIG_FILE in before.files and before.configuration != now.configuration:
            with contextlib.suppress(ConfigError):  # one that nobody could have served by
                return_to(model, version, before.configuration)
        if (model / str(version)).is_dir():
            discard(model / str(version))
        self._put_back(name, before.of_version)

    def _put_back(self, name: str, files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            file = self.folder / name / path
            # Of a version that is gone, nothing comes back.
            if file.parent.is_dir() and not same_bytes(file, content):
                write_file(file, content)

    def _vanish(self, name: str) -> None:
        away = self._changes.new_folder(name)
        shutil.rmtree(away, ignore_errors=True)
        (self.folder / name).rename(away)
        shutil.rmtree(away, ignore_errors=True)

    def _is_gone(self, name: str, version: int, finished: frozenset[str]) -> bool:
        """Whether a crash left it half deleted, which is finished by now; refuses a version that was not there."""
        if str(version) in finished and version not in self.versions(name):
            return True
        self.expect(name, version)
        return False

    @contextmanager
    def _model(self, name: str) -> Iterator[Path]:
        """The model's folder; that of a new one is elsewhere until it is whole."""
        model = self.folder / name
        if model.is_dir():
            yield model
            return
        with appearing(model, self._changes.new_folder(name)) as new:
            yield new

    def _publish(self, model: Path, content: Content, *, configure: bool) -> int:
        if not has_config(model):
            self._provide_config(model, content)
        served = self.version_folder(content.card.name)
        if content.is_in(served):
            content.card.write(served)
            if configure:
                self._configure(content)
            return int(served.name)
        version = self._next(model)
        # Those in force from then on.
        labels = labels_in(model) | (content.labels if configure else {})
        with pinned(model, version) if configure else contextlib.nullcontext():
            with appearing(model / str(version)) as new:
                content.fill(new)
                for label_file, text in labels.items():
                    with naming(new / label_file):
                        (new / label_file).write_bytes(text)
            if configure:
                content.configure(model)
        self._forget_oldest(content.card.name)
        return version

    def _configure(self, content: Content) -> None:
        model = self.folder / content.card.name
        with pinned(model, self._next(model)):
            content.configure(model)
        version = self.version_folder(content.card.name).name
        self._put_back(content.card.name, {f"{version}/{file}": text for file, text in content.labels.items()})

    def _provide_config(self, model: Path, content: Content) -> None:
        content.configure(model)
        if CONFIG_FILE not in content.beside:
            write_file(model / CONFIG_FILE, (COMMITTED / content.card.name / CONFIG_FILE).read_bytes())

    def _next(self, model: Path) -> int:
        # Also beyond a folder without a graph, which somebody else may be filling.
        taken = [int(path.name) for path in model.glob("*") if path.name.isdecimal()]
        return max(taken, default=FIRST_VERSION - 1) + 1

    def _forget_oldest(self, name: str) -> None:
        for version in self.versions(name)[:-KEPT_VERSIONS]:
            # What was asked for is done by now; the next change forgets it.
            with contextlib.suppress(OSError):
                discard(self.version_folder(name, version))
