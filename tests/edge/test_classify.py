"""From the parameter `priority` to a class, where the model has levels of its own and where it has none."""

import pytest
from tritonclient.grpc import service_pb2

from scheduler.config import Config
from scheduler.edge.access import Access
from scheduler.edge.classify import Classifier
from scheduler.triton.queue_policy import QueuePolicies

CLASSES = ("first", "second", "third")


@pytest.mark.parametrize(
    ("queue", "ranks"),
    [
        # Without levels a priority is a class, and what lies beyond the last one is the last.
        (QueuePolicies(), {0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 99: 2}),
        # Levels are spread over the classes; what names none that there is has the model's default level.
        (QueuePolicies(levels=3, default_level=2), {0: 0, 1: 0, 2: 1, 3: 2, 4: 1, 99: 1}),
        (QueuePolicies(levels=2, default_level=2), {1: 0, 2: 1, 3: 1}),
        (QueuePolicies(levels=9, default_level=1), {1: 0, 3: 0, 4: 1, 6: 1, 7: 2, 9: 2, 10: 0}),
        (QueuePolicies(levels=1, default_level=0), {1: 0, 2: 0}),
    ],
)
def test_priority_becomes_a_class(queue: QueuePolicies, ranks: dict[int, int]) -> None:
    config = Config.model_validate({"classes": [{"name": name} for name in CLASSES]})
    classifier = Classifier(config, Access(config), lambda model, version: queue)
    for priority, rank in ranks.items():
        request = service_pb2.ModelInferRequest(model_name="m")
        request.parameters["priority"].uint64_param = priority
        caller = classifier.classify(request, {}, None, dict)
        assert (caller.priority_class, caller.level) == (CLASSES[rank], priority)
