"""What a repository's index tells of models that are not served."""

from tritonclient.grpc import service_pb2

from scheduler.triton.unserved import LOADING, Unserved, load_failure, of_index, plain


def entry(name: str, state: str = "", reason: str = "", version: str = "1") -> service_pb2.RepositoryIndexResponse:
    return service_pb2.RepositoryIndexResponse.ModelIndex(name=name, version=version, state=state, reason=reason)


def test_only_what_was_tried_and_has_no_ready_version_is_told_of() -> None:
    index = [
        entry("ready", "READY"),
        entry("half", "UNAVAILABLE", "no file", version="2"),
        entry("half", "READY"),
        entry("unloaded", "UNAVAILABLE", "unloaded"),
        entry("never_asked_for"),
        entry("gone", "UNAVAILABLE"),
        entry("loading", "LOADING"),
        entry("broken", "UNAVAILABLE", "Internal: no\nlicence;\n\nAt:\n  model.py(3): initialize\n"),
    ]
    assert of_index(index) == {"loading": LOADING, "broken": Unserved("Internal: no licence")}


def test_a_reason_is_one_line_without_its_traceback() -> None:
    assert plain("a\n  b;\n\nAt:\n c") == "a b"
    assert plain("") == ""


def test_an_answer_to_a_load_is_told_without_what_the_caller_knows() -> None:
    told = "load failed for model 'add': version 1 is at UNAVAILABLE state: Internal: broken;\n"
    assert load_failure(told, "add") == "Internal: broken;\n"
    assert load_failure("something else", "add") == "something else"
