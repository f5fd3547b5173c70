"""Which backends are ready, and what models they serve: asked again every PROBE_INTERVAL_S."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2

from scheduler.core.backends.backend import BackendState
from scheduler.errors import no_backend, not_loaded, shown, unknown_model
from scheduler.triton.answer import parsed
from scheduler.triton.joining import with_parts
from scheduler.triton.pool import Pool
from scheduler.triton.round_trip import RoundTrip
from scheduler.triton.spec import ModelSpec, spec_from_config
from scheduler.triton.unserved import READY, Unserved, load_failure, of_index, plain

log = logging.getLogger(__name__)

# A backend that went is noticed within about a second, at a cost of a few calls a second.
PROBE_INTERVAL_S: Final = 1.0
# A healthy Triton answers in a millisecond; one that needs longer than this is not ready.
PROBE_TIMEOUT_S: Final = 2.0
# Probes that were late for so long may be so for a connection that is dead.
RENEW_S: Final = 10.0
# A look-up of an unknown name asks the backends again, but no more often than this.
LOOKUP_INTERVAL_S: Final = 0.25
# What is there and not served is asked for less often: Triton reads the repository for it, which may lie far away.
WHOLE_INTERVAL_S: Final = 5.0

# Given the models that are served: which of the others were not loaded, and why.
Loader = Callable[[Collection[str]], Mapping[str, Unserved]]


class Catalog:
    """The models of every backend, kept up to date."""

    def __init__(self, pool: Pool, report: Callable[[BackendState], None], offers: Callable[[str], bool]) -> None:
        """Make a catalogue.

        Args:
            pool: the backends' channels.
            report: called with each backend's state when it has changed.
            offers: whether requests for a model may wait, by what was reported.
        """
        self._pool = pool
        self._report = report
        self._offers = offers
        # What a lost backend served is kept: requests for it are then unavailable, not unknown.
        self._specs: dict[str, dict[str, ModelSpec]] = {}
        # Since when the probes of a backend are late.
        self._late_since: dict[str, float] = {}
        self._round_trips: dict[str, RoundTrip] = {}
        # Models that a backend came back without, and that are waited for.
        self._missed: dict[str, ModelSpec] = {}
        self._reported: dict[str, BackendState] = {}
        # Models of each backend that are not served, and why: what was told of once is not told again.
        self._left_out: dict[str, dict[str, str]] = {}
        # Models of each backend that it could not load: by its own index, and by who loads them.
        self._by_index: dict[str, dict[str, Unserved]] = {}
        self._by_loader: dict[str, Loader] = {}
        # By the answer to somebody's load, of folders that are there: the index tells nothing of an unreadable one.
        self._by_hand: dict[str, dict[str, Unserved]] = {}
        # Backends whose next asking is for models that are not served, too.
        self._whole: set[str] = set()
        self._whole_at = float("-inf")
        # Of each model, what was told of settings that cost time.
        self._told: dict[str, tuple[str, ...]] = {}
        # What `get` found, until a backend or a model changes.
        self._found: dict[tuple[str, str], ModelSpec] = {}
        self._any_ready = asyncio.Event()
        self._looked_up_at = float("-inf")
        self._refreshing: asyncio.Future[None] | None = None

    def ready(self) -> list[str]:
        """The ready backends."""
        return [name for name, state in self._reported.items() if state.ready]

    def serves(self, backend: str, model: str) -> bool:
        """Whether the backend is ready and serves the model."""
        state = self._reported.get(backend)
        return state is not None and state.ready and model in state.models

    def served_by(self, backend: str) -> frozenset[str]:
        """The models that the backend serves; none of one that is not ready."""
        state = self._reported.get(backend)
        return frozenset() if state is None or not state.ready else frozenset(state.models)

    def unserved(self) -> dict[str, Unserved]:
        """The models that a ready backend has and none serves, by name, and why."""
        ready = self.ready()
        served = {model for backend in ready for model in self.served_by(backend)}
        found = {model: about for backend in ready for model, about in self._unserved_by(backend).items()}
        return {model: about for model, about in sorted(found.items()) if model not in served}

    def loaded_by(self, backend: str, loader: Loader) -> None:
        """Ask whoever loads the backend's models which of them are not loaded, and why."""
        self._by_loader[backend] = loader

    def loaded_by_hand(self, backend: str, model: str, error: str | None) -> None:
        """Somebody had the backend load or unload a model, and got this error; the next whole refresh tells of it."""
        models = self._by_hand.setdefault(backend, {})
        models.pop(model, None)
        if error is not None:
            models[model] = Unserved(plain(load_failure(error, model)))

    def get(self, model: str, version: str) -> ModelSpec | None:
        """The model as `find` would give it, where nobody has to be asked."""
        spec = self._found.get((model, version))
        if spec is None:
            spec = self._known(model, version)
            if spec is None or (version and version not in spec.versions):
                return None
            self._found[model, version] = spec
        return spec

    async def find(self, model: str, version: str, permits: Callable[[str], bool] | None = None) -> ModelSpec:
        """The model as a ready backend serves it, or as a lost one did where no ready one knows it.

        Args:
            model: its name.
            version: of it; empty: any.
            permits: whether who asks may know of a model; an error names no other one. None: of none.

        Raises:
            RequestError: NOT_FOUND, where no backend has the model, or not this version; UNAVAILABLE,
                where no backend is there to say so, or one has it and could not load it.
        """
        spec = self.get(model, version)
        if spec is None:
            await self._look_again()
            spec = self._known(model, version)
        if spec is None and not self.ready() and not any(map(self._offers, self._names())):
            raise no_backend("no backend is ready")
        if spec is None and (about := self.unserved().get(model)) is not None:
            raise not_loaded(model, about.why, loading=about.loading)
        if spec is None:
            served = sorted(name for name in self._names() if permits and permits(name))
            raise unknown_model(f"unknown model {shown(model)}; served are: {', '.join(served) or 'none'}")
        if version and version not in spec.versions:
            raise unknown_model(
                f"model {model}: unknown version {shown(version)}; served are: {', '.join(spec.versions)}"
            )
        return spec

    async def until_ready(self) -> None:
        """Wait until a backend is ready; `watch` must be running."""
        await self._any_ready.wait()

    async def watch(self) -> None:
        """Refresh for ever; run as a task."""
        while True:
            await self.refresh()
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def refresh(self, *, whole: bool = False) -> None:
        """Ask every backend once; concurrent calls share one asking.

        Args:
            whole: ask for models that are not served, too.
        """
        if whole:
            self._whole.update(self._pool.names())
        await self._refresh_shared()
        if whole and self._whole:  # it was under way, and past that question
            await self._refresh_shared()

    async def _refresh_shared(self) -> None:
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._refresh_all())
            self._refreshing.add_done_callback(lambda _: setattr(self, "_refreshing", None))
        await asyncio.shield(self._refreshing)

    def lost(self, backend: str) -> None:
        """The backend is known to have gone: do not wait for the next probe to say so."""
        self._by_hand.pop(backend, None)
        self._tell(BackendState(backend, ready=False, models={}))

    def forget(self, backend: str) -> None:
        """The backend is not one of ours any more."""
        self._reported.pop(backend, None)
        self._left_out.pop(backend, None)
        self._by_index.pop(backend, None)
        self._by_hand.pop(backend, None)
        self._whole.discard(backend)
        self._round_trips.pop(backend, None)
        # A model that nobody else serves yet is waited for as long as the core says.
        gone = self._specs.pop(backend, {})
        self._missed = {name: spec for name, spec in (gone | self._missed).items() if self._offers(name)}
        self._found.clear()
        if not self.ready():
            self._any_ready.clear()

    def _known(self, model: str, version: str) -> ModelSpec | None:
        """The best that is known: of a ready backend before a lost one, with the version before one without."""
        ready = self.ready()
        found = [(backend in ready, specs[model]) for backend, specs in self._specs.items() if model in specs]
        found.sort(key=lambda each: (each[0], not version or version in each[1].versions), reverse=True)
        return found[0][1] if found else self._missed.get(model)

    def _names(self) -> set[str]:
        """All models that a ready, lost or missed backend serves."""
        return {name for specs in self._specs.values() for name in specs} | self._missed.keys()

    async def _look_again(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._looked_up_at >= LOOKUP_INTERVAL_S:
            self._looked_up_at = now
            whole = now - self._whole_at >= WHOLE_INTERVAL_S
            if whole:
                self._whole_at = now
            await self.refresh(whole=whole)

    async def _refresh_all(self) -> None:
        await asyncio.gather(*(self._refresh(name) for name in self._pool.names()))

    async def _refresh(self, backend: str) -> None:
        if backend not in self._pool.names():
            return  # let go since
        stub = self._pool.stub(backend)
        specs: dict[str, ModelSpec] | None = None
        late = False
        try:
            specs = await self._ask(backend, stub, self._specs.get(backend, {}))
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        except grpc.aio.UsageError:
            pass  # closed meanwhile
        except asyncio.CancelledError:
            # A channel that is closed under a call cancels it, though nobody cancelled this task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        if not self._pool.uses(backend, stub):
            return  # connected anew meanwhile: the answer is about what was there before
        if not late:
            self._late_since.pop(backend, None)
        if specs is None:
            self.lost(backend)
            if late:
                await self._renew(backend)
            return
        before = self._specs.get(backend, {})
        # What has not changed stays the same object: what was worked out from it still holds.
        self._specs[backend] = {
            name: before[name] if before.get(name) == spec else spec for name, spec in specs.items()
        }
        capacities = {name: spec.capacity for name, spec in specs.items()}
        failed = {name for name, about in self._unserved_by(backend).items() if not about.loading}
        failed -= specs.keys()
        far_s = self._round_trips[backend].seconds
        self._tell(BackendState(backend, ready=True, models=capacities, failed=frozenset(failed), round_trip_s=far_s))
        # An unloaded model is not waited for, one that a restarted server has not loaded yet is.
        self._missed = {name: spec for name, spec in (before | self._missed).items() if self._offers(name)}
        self._found.clear()

    async def _renew(self, backend: str) -> None:
        """Look for another connection where probes have been late for long."""
        now = asyncio.get_running_loop().time()
        if now - self._late_since.setdefault(backend, now) >= RENEW_S:
            self._late_since[backend] = now
            await self._pool.renew(backend)

    async def _ask(self, backend: str, stub: Any, before: dict[str, ModelSpec]) -> dict[str, ModelSpec] | None:
        """The models that are ready, or None where the server is not live.

        The server counts as ready while any model is: one that fails to load does not take the others along.
        """
        asked_at = asyncio.get_running_loop().time()
        live = parsed(await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=PROBE_TIMEOUT_S))
        if not live.live:
            return None
        took_s = asyncio.get_running_loop().time() - asked_at
        self._round_trips.setdefault(backend, RoundTrip()).probed(took_s)
        self._pool.set_version(backend, await _version(stub))
        whole = backend in self._whole or backend not in self.ready()
        self._whole.discard(backend)
        asked = service_pb2.RepositoryIndexRequest(ready=not whole)
        index = parsed(await stub.RepositoryIndex(asked, timeout=PROBE_TIMEOUT_S))
        versions: dict[str, list[str]] = {}
        for entry in index.models:
            if not whole or entry.state == READY:
                versions.setdefault(entry.name, []).append(entry.version)
        if whole:
            self._note_index(backend, index.models)
        specs = {}
        left_out = {}
        for name, loaded in versions.items():
            try:
                asked = service_pb2.ModelConfigRequest(name=name)
                reply = parsed(await stub.ModelConfig(asked, timeout=PROBE_TIMEOUT_S))
            except grpc.aio.AioRpcError as error:
                # One slow answer is no reason to evict a queue; any other error: unloaded in between.
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and name in before:
                    specs[name] = before[name]
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    # Unless the server goes: then this fails as well, and nothing was unloaded.
                    await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=PROBE_TIMEOUT_S)
                continue
            try:
                specs[name] = _spec(name, reply.config, tuple(loaded))
            except ValueError as error:
                left_out[name] = str(error)
        self._leave_out(backend, left_out)
        for spec in specs.values():
            self._tell_hindrances(spec)
        return with_parts(specs)

    def _unserved_by(self, backend: str) -> dict[str, Unserved]:
        """What the backend has and does not serve, or did not when it was last asked for that."""
        senseless = {model: Unserved(why) for model, why in self._left_out.get(backend, {}).items()}
        return {
            **self._by_index.get(backend, {}),
            **self._loader(backend),
            **self._by_hand.get(backend, {}),
            **senseless,
        }

    def _loader(self, backend: str) -> Mapping[str, Unserved]:
        loader = self._by_loader.get(backend)
        return {} if loader is None else loader(self.served_by(backend))

    def _note_index(self, backend: str, entries: Sequence[Any]) -> None:
        """Say once what the backend could not load; who loads an embedded one's models says so itself."""
        before = self._by_index.get(backend, {})
        models = self._by_index[backend] = of_index(entries)
        there = {entry.name for entry in entries}
        by_hand = self._by_hand.get(backend, {})
        self._by_hand[backend] = {model: about for model, about in by_hand.items() if model in there}
        for model, about in models.items():
            if before.get(model) != about and not about.loading and model not in self._loader(backend):
                log.warning("backend %s, model %r is not served: %s", backend, model, about.why)

    def _tell_hindrances(self, spec: ModelSpec) -> None:
        """Say once what of a model's configuration costs time here, and again where that has changed."""
        if spec.hindrances != self._told.get(spec.name, ()):
            self._told[spec.name] = spec.hindrances
            for hindrance in spec.hindrances:
                log.warning("model %s, config.pbtxt: dynamic_batching: %s", spec.name, hindrance)

    def _leave_out(self, backend: str, models: dict[str, str]) -> None:
        """Models whose configuration makes no sense, and why."""
        before = self._left_out.get(backend, {})
        self._left_out[backend] = models
        for model, why in models.items():
            if before.get(model) != why:
                log.warning("backend %s, model %r is not served: %s", backend, model, why)

    def _tell(self, state: BackendState) -> None:
        before = self._reported.get(state.name)
        if state == before:
            return
        if before is None or before.ready != state.ready:
            log.info("backend %s is %s", state.name, "ready" if state.ready else "not ready")
        self._reported[state.name] = state
        self._found.clear()
        if self.ready():
            self._any_ready.set()
        else:
            self._any_ready.clear()
        self._report(state)


async def _version(stub: Any) -> str:
    """What the server says of its version; nothing where it does not know the question."""
    try:
        asked = service_pb2.ServerMetadataRequest()
        return str(parsed(await stub.ServerMetadata(asked, timeout=PROBE_TIMEOUT_S)).version)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        return ""


def _spec(model: str, config: Any, versions: tuple[str, ...]) -> ModelSpec:
    """What the configuration says of the model.

    Raises:
        ValueError: it makes no sense, or is another model's.
    """
    if config.name != model:
        raise ValueError(f"expected its configuration, got that of {config.name!r}")
    return spec_from_config(config, versions)
