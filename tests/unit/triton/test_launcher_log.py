from pathlib import Path

from scheduler.triton import launcher_log

LOG = r"""W1122 00:25:03.256515 7227 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory"
E1122 00:25:03.256747 7227 server.cc:241] "CudaDriverHelper has not been initialized."
[libprotobuf ERROR /tmp/text_format.cc:337] Error parsing text-format inference.ModelConfig: 5:48: Expected integer
E1122 00:25:04.008556 7227 backend_model.cc:692] "ERROR: Failed to create instance: Bad: broken\n\nAt:\n  model.py(8)\n"
E1122 00:25:04.038148 7227 model_lifecycle.cc:642] "failed to load 'add' version 1: Bad: broken\n\nAt:\n  model.py(8)\n"
E1122 00:25:04.038248 7227 model_lifecycle.cc:642] "failed to load 'add' version 1: Bad: broken\n\nAt:\n  model.py(8)\n"
error: creating server: Internal - failed to load all models""".splitlines()


def test_reasons_are_tritons_words_once_each_without_noise_and_tracebacks():
    assert launcher_log.reasons(LOG) == [
        "Error parsing text-format inference.ModelConfig: 5:48: Expected integer",
        "failed to load 'add' version 1: Bad: broken",
        "creating server: Internal - failed to load all models",
    ]


LOADING = r"""I1124 00:35:39.780598 24370 model_lifecycle.cc:472] "loading: unet:2"
I1124 00:35:39.780650 24370 model_lifecycle.cc:472] "loading: tied:1"
I1124 00:35:39.780691 24370 model_lifecycle.cc:472] "loading: vit:12"
I1124 00:35:40.057494 24370 model_lifecycle.cc:839] "successfully loaded 'tied'"
""".splitlines()


def test_models_that_were_being_loaded_when_the_log_ended_are_known():
    assert launcher_log.unfinished(LOADING) == ["unet", "vit"]
    assert launcher_log.unfinished(LOG) == []


def test_tail_reads_the_end_of_a_file_and_nothing_where_there_is_none(tmp_path):
    path = tmp_path / "log"
    assert launcher_log.tail(path) == []
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert launcher_log.tail(path, limit_bytes=20)[-1] == "line 999"
    assert len(launcher_log.tail(path, limit_bytes=20)) <= 3


POLLED = r"""[libprotobuf ERROR /tmp/text_format.cc:337] Error parsing inference.ModelConfig: 2:10: Expected "{"
E1130 19:05:15.6 16111 model_repository_manager.cc:1460] "Poll failed for model directory 'bad': failed to read /r/bad"
E1130 19:05:15.6 16111 model_repository_manager.cc:1460] "Poll failed for model directory 'worse': no config.pbtxt"
I1130 19:05:15.7 16289 pb_stub.cc:2105]  Failed to preinitialize Python stub: no file '/r/empty/1/model.py'
I1130 19:05:15.7 16289 pb_stub.cc:366] "Failed to initialize Python stub: syntax error in /r/empty_too/1/model.py"
""".splitlines()


def test_why_a_folder_could_not_be_read_stands_in_the_log_alone():
    assert launcher_log.is_poll_failure("failed to load 'bad', failed to poll from model repository")
    assert not launcher_log.is_poll_failure("load failed for model 'bad': no")
    expected = 'failed to read /r/bad (Error parsing inference.ModelConfig: 2:10: Expected "{")'
    assert launcher_log.poll_failure(POLLED, "bad") == expected
    assert launcher_log.poll_failure(POLLED, "worse") == "no config.pbtxt"
    assert launcher_log.poll_failure(POLLED, "good") is None


def test_what_python_said_of_a_model_is_a_hint():
    assert launcher_log.hint(POLLED, Path("/r/empty")) == "no file '/r/empty/1/model.py'"
    assert launcher_log.hint(POLLED, Path("/r/bad")) is None


def test_a_flag_that_is_not_taken_is_a_reason():
    line = "/opt/bin/tritonserver: unrecognized option '--nope=1'"
    assert launcher_log.reasons([line, launcher_log.USAGE]) == ["unrecognized option '--nope=1'"]
    assert launcher_log.reasons(["tritonserver: option '--grpc' is ambiguous"]) == ["option '--grpc' is ambiguous"]
