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
